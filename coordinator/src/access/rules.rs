//! The rule of every method. A method without one is refused, and a test fails until it has one.

use sluice_common::identity::Role;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Anyone, without a certificate too: the request itself carries the proof.
    Open,
    /// Hosts, each for itself.
    Host,
    /// Operators with this role or a higher one.
    Operator(Role),
    /// Hosts and operators.
    AnyIdentity,
}

const VIEWER: Rule = Rule::Operator(Role::Viewer);
const DEPLOYER: Rule = Rule::Operator(Role::Deployer);
const APPROVER: Rule = Rule::Operator(Role::Approver);
const ADMIN: Rule = Rule::Operator(Role::Admin);

const RULES: &[(&str, Rule)] = &[
    ("/sluice.v1.Enrollment/Enroll", Rule::Open),
    ("/sluice.v1.Session/Attach", Rule::Host),
    ("/sluice.v1.Session/Renew", Rule::AnyIdentity),
    ("/sluice.v1.Content/GetPlan", Rule::Host),
    ("/sluice.v1.Content/Fetch", Rule::Host),
    ("/sluice.v1.Administration/WhoAmI", VIEWER),
    ("/sluice.v1.Administration/CreateToken", ADMIN),
    ("/sluice.v1.Administration/Revoke", ADMIN),
    ("/sluice.v1.Administration/ListOperators", VIEWER),
    ("/sluice.v1.Administration/ListAudit", VIEWER),
    ("/sluice.v1.Administration/VerifyAudit", VIEWER),
    ("/sluice.v1.Fleet/ListHosts", VIEWER),
    ("/sluice.v1.Fleet/GetHost", VIEWER),
    ("/sluice.v1.Fleet/ListSites", VIEWER),
    ("/sluice.v1.Fleet/SetSiteLimit", APPROVER),
    ("/sluice.v1.Packages/Push", DEPLOYER),
    ("/sluice.v1.Packages/ListPackages", VIEWER),
    ("/sluice.v1.Packages/GetPackage", VIEWER),
    ("/sluice.v1.Packages/ListPlans", VIEWER),
    ("/sluice.v1.Packages/CreateRelease", DEPLOYER),
    ("/sluice.v1.Packages/ListReleases", VIEWER),
    ("/sluice.v1.Depot/Show", VIEWER),
    ("/sluice.v1.Depot/Collect", ADMIN),
    ("/sluice.v1.Notifications/Add", ADMIN),
    ("/sluice.v1.Notifications/List", VIEWER),
    ("/sluice.v1.Notifications/Test", ADMIN),
    ("/sluice.v1.Notifications/Remove", ADMIN),
    ("/sluice.v1.Records/HostHistory", VIEWER),
    ("/sluice.v1.Records/ReleaseHistory", VIEWER),
    ("/sluice.v1.Forecasts/Plan", DEPLOYER),
    ("/sluice.v1.Forecasts/Simulate", DEPLOYER),
    ("/sluice.v1.Rollouts/Start", DEPLOYER),
    ("/sluice.v1.Rollouts/List", VIEWER),
    ("/sluice.v1.Rollouts/Get", VIEWER),
    ("/sluice.v1.Rollouts/Watch", VIEWER),
    ("/sluice.v1.Rollouts/Pause", DEPLOYER),
    ("/sluice.v1.Rollouts/Resume", DEPLOYER),
    ("/sluice.v1.Rollouts/Abort", DEPLOYER),
    ("/sluice.v1.Rollouts/RollBack", DEPLOYER),
    ("/sluice.v1.Rollouts/AppHistory", VIEWER),
    ("/sluice.v1.Rollouts/Approve", APPROVER),
    ("/sluice.v1.Rollouts/Override", APPROVER),
    ("/sluice.v1.Rollouts/GetApp", VIEWER),
    ("/sluice.v1.Rollouts/ReopenApp", DEPLOYER),
    ("/sluice.v1.Environments/Plan", VIEWER),
    ("/sluice.v1.Environments/Forecast", DEPLOYER),
    ("/sluice.v1.Environments/Apply", DEPLOYER),
    ("/sluice.v1.Environments/Stop", DEPLOYER),
    ("/sluice.v1.Environments/List", VIEWER),
    ("/sluice.v1.Environments/Get", VIEWER),
    ("/sluice.v1.Environments/Diff", VIEWER),
    ("/sluice.v1.Environments/Layout", VIEWER),
    ("/sluice.v1.Environments/Export", VIEWER),
];

/// Returns the rule of a method, by its path (`/sluice.v1.SERVICE/METHOD`).
pub fn rule(path: &str) -> Option<Rule> {
    RULES.iter().find(|(known, _)| *known == path).map(|(_, rule)| *rule)
}

/// Returns every method with its rule.
#[cfg(test)]
pub(crate) fn all() -> &'static [(&'static str, Rule)] {
    RULES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;
    use sluice_proto::v1::DESCRIPTORS;

    use super::*;

    /// Reads every method's path out of the protocol's own description.
    fn declared() -> BTreeSet<String> {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
        let paths = files.iter().flat_map(|file| {
            file.service.iter().flat_map(move |service| {
                let path = move |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                service.method.iter().map(move |method| path(method.name()))
            })
        });
        paths.collect()
    }

    #[test]
    fn every_method_of_the_protocol_has_exactly_one_rule() {
        let ruled: BTreeSet<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(ruled.len(), RULES.len(), "a method has two rules");
        assert_eq!(declared(), ruled);
    }

    #[test]
    fn only_enrolment_is_open_and_unknown_paths_have_no_rule() {
        let open: Vec<_> = RULES.iter().filter(|(_, rule)| *rule == Rule::Open).collect();
        assert_eq!(open, [&("/sluice.v1.Enrollment/Enroll", Rule::Open)]);
        for path in ["", "/", "/sluice.v1.Fleet", "/sluice.v1.Fleet/ListHosts/", "/sluice.v1.Fleet/listhosts"]
        {
            assert_eq!(rule(path), None, "{path}");
        }
    }
}
