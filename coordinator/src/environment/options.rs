//! How the rollouts of an environment go: the options of `sluice rollout start`, as `fleet.toml` has them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_common::selector::Selector;
use sluice_common::units::Share;

use crate::rollout::{Calendar, Check, Floor, Freeze, OnFailure, PerDomain, Spec, Strategy, Window};

/// Options of a rollout; what is not said is taken from the environment's, then from the defaults of `rollout start`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The strategy; said by `waves` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyName>,
    /// How many hosts go first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Share>,
    /// How many hosts switch together after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Share>,
    /// How many hosts have switched after each wave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waves: Option<Vec<Share>>,
    /// How long a batch must stay healthy.
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub bake: Option<Duration>,
    /// How long batches with hosts of the site that comes first must stay healthy.
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub first_site_bake: Option<Duration>,
    /// How many hosts have to stay in service, of those that run the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_healthy: Option<Share>,
    /// How many hosts may be out at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<Share>,
    /// How many hosts may fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<Share>,
    /// What happens to the rollout when more fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// How long a reachable host may take to switch.
    #[serde(with = "time", skip_serializing_if = "Option::is_none")]
    pub host_deadline: Option<Duration>,
    /// How many hosts must be staged before the first batch switches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_first: Option<Share>,
    /// The label whose values are failure domains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// How many hosts of a failure domain may be out at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_max_unavailable: Option<Share>,
    /// How many hosts of a failure domain may fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_max_failures: Option<Share>,
    /// When hosts may switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<Vec<Window>>,
    /// When they may not; an application's add to the environment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freezes: Option<Vec<Freeze>>,
    /// How many approvers have to agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u32>,
    /// Who else is asked while a batch bakes; an application's take the place of the environment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<Check>>,
}

/// A strategy by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrategyName {
    /// One batch.
    AllAtOnce,
    /// Batches of one size.
    Rolling,
    /// A canary, then batches of one size.
    Canary,
    /// A canary, then growing shares.
    Waves,
    /// A canary, then batches that double.
    Exponential,
    /// One host, which migrates what all of them share, then batches of one size.
    OneHostFirst,
    /// Candidates on all hosts, then batches of one size.
    BlueGreen,
}

/// Says which option does not go with the strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError {
    /// The option.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Options {
    /// Says whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns these options, and `under` where they say nothing. A strategy is taken whole: its sizes are no use to another one.
    /// Freezes add up.
    #[must_use]
    pub fn over(self, under: &Self) -> Self {
        let has_strategy = self.strategy.is_some() || self.waves.is_some();
        let kept = |share: Option<Share>| if has_strategy { None } else { share };
        let freezes = match (self.freezes, &under.freezes) {
            (Some(own), Some(under)) => Some(under.iter().cloned().chain(own).collect()),
            (own, under) => own.or_else(|| under.clone()),
        };
        Self {
            strategy: self.strategy.or(if has_strategy { None } else { under.strategy }),
            canary: self.canary.or(kept(under.canary)),
            batch: self.batch.or(kept(under.batch)),
            waves: self.waves.or_else(|| if has_strategy { None } else { under.waves.clone() }),
            bake: self.bake.or(under.bake),
            first_site_bake: self.first_site_bake.or(under.first_site_bake),
            min_healthy: self.min_healthy.or(under.min_healthy),
            max_unavailable: self.max_unavailable.or(under.max_unavailable),
            max_failures: self.max_failures.or(under.max_failures),
            on_failure: self.on_failure.or(under.on_failure),
            host_deadline: self.host_deadline.or(under.host_deadline),
            stage_first: self.stage_first.or(under.stage_first),
            domain: self.domain.or_else(|| under.domain.clone()),
            domain_max_unavailable: self.domain_max_unavailable.or(under.domain_max_unavailable),
            domain_max_failures: self.domain_max_failures.or(under.domain_max_failures),
            windows: self.windows.or_else(|| under.windows.clone()),
            freezes,
            approvals: self.approvals.or(under.approvals),
            checks: self.checks.or_else(|| under.checks.clone()),
        }
    }

    /// Makes the spec of a rollout.
    pub fn spec(&self, selector: Selector) -> Result<Spec, OptionError> {
        let standard = Spec::default();
        let strategy = self.strategy()?;
        let of_domains = [
            ("domain_max_unavailable", self.domain_max_unavailable),
            ("domain_max_failures", self.domain_max_failures),
        ];
        if let Some((field, _)) =
            of_domains.iter().find(|(_, share)| share.is_some() && self.domain.is_none())
        {
            let reason = "goes with domain, the label whose values are failure domains".to_owned();
            return Err(OptionError { field, reason });
        }
        let per_domain = self.domain.as_ref().map(|label| PerDomain {
            label: label.clone(),
            max_unavailable: self.domain_max_unavailable.unwrap_or(Share::Count(1)),
            max_failures: self.domain_max_failures,
        });
        let calendar = Calendar {
            windows: self.windows.clone().unwrap_or_default(),
            freezes: self.freezes.clone().unwrap_or_default(),
        };
        let spec = Spec {
            selector,
            max_unavailable: self.max_unavailable.unwrap_or_else(|| strategy.default_max_unavailable()),
            strategy,
            bake: self.bake.unwrap_or(standard.bake),
            max_failures: self.max_failures.unwrap_or(standard.max_failures),
            on_failure: self.on_failure.unwrap_or(standard.on_failure),
            host_deadline: self.host_deadline.unwrap_or(standard.host_deadline),
            stage_first: self.stage_first.unwrap_or(standard.stage_first),
            per_domain,
            first_site_bake: self.first_site_bake,
            floors: self.min_healthy.map(floor).into_iter().collect(),
            calendar,
            approvals: self.approvals.unwrap_or_default(),
            checks: self.checks.clone().unwrap_or_default(),
            ..standard
        };
        spec.check().map_err(|error| OptionError { field: error.field, reason: error.reason })?;
        Ok(spec)
    }

    fn strategy(&self) -> Result<Strategy, OptionError> {
        let name = self.strategy.unwrap_or(match self.waves {
            Some(_) => StrategyName::Waves,
            None => StrategyName::Canary,
        });
        let (canary, batch, waves) = match name {
            StrategyName::AllAtOnce => (false, false, false),
            StrategyName::Rolling | StrategyName::OneHostFirst | StrategyName::BlueGreen => {
                (false, true, false)
            }
            StrategyName::Canary => (true, true, false),
            StrategyName::Waves => (false, false, true),
            StrategyName::Exponential => (true, false, false),
        };
        for (field, is_said, fits) in [
            ("canary", self.canary.is_some(), canary),
            ("batch", self.batch.is_some(), batch),
            ("waves", self.waves.is_some(), waves),
        ] {
            if is_said && !fits {
                let reason =
                    format!("does not go with strategy = {:?}; leave one of them out", name.as_str());
                return Err(OptionError { field, reason });
            }
        }
        let canary = self.canary.unwrap_or(Share::Count(1));
        let all = matches!(name, StrategyName::BlueGreen);
        let batch = self.batch.unwrap_or(Share::Percent(if all { 100 } else { 25 }));
        Ok(match name {
            StrategyName::AllAtOnce => Strategy::AllAtOnce,
            StrategyName::Rolling => Strategy::Rolling { batch },
            StrategyName::Canary => Strategy::Canary { canary, batch },
            StrategyName::Waves => Strategy::Waves { waves: self.waves.clone().unwrap_or_default() },
            StrategyName::Exponential => Strategy::Exponential { first: canary },
            StrategyName::OneHostFirst => Strategy::OneHostFirst { batch },
            StrategyName::BlueGreen => Strategy::BlueGreen { batch },
        })
    }
}

fn floor(min_healthy: Share) -> Floor {
    Floor { by: None, min_healthy, label: None }
}

impl StrategyName {
    fn as_str(self) -> &'static str {
        match self {
            Self::AllAtOnce => "all-at-once",
            Self::Rolling => "rolling",
            Self::Canary => "canary",
            Self::Waves => "waves",
            Self::Exponential => "exponential",
            Self::OneHostFirst => "one-host-first",
            Self::BlueGreen => "blue-green",
        }
    }
}

/// Times as people write them; written in the largest unit that is exact.
mod time {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};
    use sluice_common::units::duration_text;

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let Some(time) = time else { return serializer.serialize_none() };
        let millis = time.as_millis();
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        match units.into_iter().find(|(_, scale)| millis > 0 && millis.is_multiple_of(*scale)) {
            Some((unit, scale)) => serializer.collect_str(&format_args!("{}{unit}", millis / scale)),
            None => serializer.collect_str(&format_args!("{millis}ms")),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration_text::option::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn an_application_says_what_differs_from_the_environment() {
        let under = options(
            "canary = \"2\"\nbatch = \"10%\"\nbake = \"2m\"\napprovals = 2\nwindows = [\"daily 20:00-23:00 UTC\"]\n\
             freezes = [\"2026-12-23 18:00 to 2027-01-02 06:00 UTC: year end\"]",
        );
        let of = |text: &str| options(text).over(&under).spec(Selector::everything()).unwrap();
        let same = of("");
        assert_eq!(same.strategy, Strategy::Canary { canary: Share::Count(2), batch: Share::Percent(10) });
        assert_eq!((same.bake, same.approvals), (Duration::from_secs(120), 2));
        let waves = of("waves = [\"1\", \"50%\"]\nbake = \"0s\"");
        assert_eq!(waves.strategy, Strategy::Waves { waves: vec![Share::Count(1), Share::Percent(50)] });
        assert_eq!((waves.bake, waves.max_unavailable), (Duration::ZERO, Share::Percent(25)));
        let checked = of("checks = [\"smoke=webhook https://ci.example.com/gate\"]");
        assert_eq!(checked.checks[0].to_string(), "smoke=webhook https://ci.example.com/gate");
        let parallel = of("strategy = \"blue-green\"");
        assert_eq!(parallel.strategy, Strategy::BlueGreen { batch: Share::Percent(100) });
        let own = of("windows = []\nfreezes = [\"2026-11-27 00:00 to 2026-11-28 00:00 UTC: sale\"]");
        assert_eq!((own.calendar.windows.len(), own.calendar.freezes.len()), (0, 2));
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_field() {
        for (text, field) in [
            ("strategy = \"all-at-once\"\nbatch = \"1\"", "batch"),
            ("strategy = \"rolling\"\ncanary = \"1\"", "canary"),
            ("strategy = \"canary\"\nwaves = [\"1\"]", "waves"),
            ("strategy = \"waves\"", "waves"),
            ("strategy = \"blue-green\"\ncanary = \"1\"", "canary"),
            ("domain_max_unavailable = \"1\"", "domain_max_unavailable"),
            ("domain_max_failures = \"1\"", "domain_max_failures"),
            ("host_deadline = \"1s\"", "host_deadline"),
        ] {
            assert_eq!(options(text).spec(Selector::everything()).unwrap_err().field, field, "{text}");
        }
        assert!(toml::from_str::<Options>("strategy = \"big-bang\"").is_err());
        assert!(toml::from_str::<Options>("canry = \"1\"").is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = "strategy = \"canary\"\ncanary = \"2\"\nbake = \"90s\"\nhost_deadline = \"2h\"\n";
        assert_eq!(toml::to_string(&options(text)).unwrap(), text);
    }
}
