//! `Fleet.*`: hosts and sites, for operators.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use prost::Message as _;
use sluice_common::caps;
use sluice_common::name::{HostName, SiteName};
use sluice_common::order::Report;
use sluice_common::selector::Selector;
use sluice_common::units::ByteRate;
use sluice_proto::convert::parse;
use sluice_proto::v1;
use tonic::{Request, Response, Status};

use super::{Fleet, HostView, RolloutSink, SiteView};
use crate::access::{Caller, Roster};

/// The `Fleet` service.
#[derive(Clone)]
pub struct FleetService {
    fleet: Fleet,
    sink: Arc<dyn RolloutSink>,
    roster: Roster,
}

impl FleetService {
    /// Makes the service.
    pub fn new(fleet: Fleet, sink: Arc<dyn RolloutSink>, roster: Roster) -> Self {
        Self { fleet, sink, roster }
    }

    fn message(&self, host: HostView, reports: Vec<v1::Report>) -> v1::Host {
        let expires = self.roster.host_certificate_end(&host.name);
        let HostView {
            name,
            site,
            labels,
            facts,
            connected,
            contact: _,
            last_seen,
            enrolled,
            revoked,
            content_bytes,
            limit: _,
        } = host;
        v1::Host {
            name: name.to_string(),
            site: site.to_string(),
            labels: labels.into_iter().collect(),
            facts: facts.as_ref().map(Into::into),
            connected,
            last_seen_unix_ms: last_seen.map_or(0, Timestamp::as_millisecond),
            enrolled_unix: enrolled.as_second(),
            revoked,
            reports,
            content_bytes,
            certificate_expires_unix: expires.map_or(0, Timestamp::as_second),
        }
    }

    async fn reports(&self, host: Option<&HostName>) -> Result<HashMap<HostName, Vec<v1::Report>>, Status> {
        let mut all: HashMap<HostName, Vec<v1::Report>> = HashMap::new();
        for (host, report) in self.sink.latest_reports(host).await? {
            let report: &Report = &report;
            all.entry(host).or_default().push(report.into());
        }
        Ok(all)
    }
}

/// Takes as many hosts as one answer has room for, and says where to go on.
fn page_of(hosts: impl Iterator<Item = v1::Host>) -> v1::ListHostsResponse {
    let mut answer = v1::ListHostsResponse::default();
    let mut room = caps::PAGE_BYTES;
    for host in hosts {
        let bytes = host.encoded_len();
        if let (true, Some(last)) = (bytes > room, answer.hosts.last()) {
            answer.next_page.clone_from(&last.name);
            break;
        }
        room = room.saturating_sub(bytes);
        answer.hosts.push(host);
    }
    answer
}

#[tonic::async_trait]
impl v1::fleet_server::Fleet for FleetService {
    async fn list_hosts(
        &self,
        request: Request<v1::ListHostsRequest>,
    ) -> Result<Response<v1::ListHostsResponse>, Status> {
        let v1::ListHostsRequest { selector, page } = request.into_inner();
        let selector: Selector = match selector.as_str() {
            "" => Selector::everything(),
            text => parse("selector", text)?,
        };
        let mut reports = self.reports(None).await?;
        // By name, so that a page can begin after the last name of the one before.
        let chosen = self.fleet.hosts().into_iter().filter(|host| host.name.as_str() > page.as_str());
        let chosen = chosen.filter(|host| selector.matches(&host.name, &host.site, &host.labels));
        let hosts = chosen.map(|host| {
            let reports = reports.remove(&host.name).unwrap_or_default();
            self.message(host, reports)
        });
        Ok(Response::new(page_of(hosts)))
    }

    async fn get_host(
        &self,
        request: Request<v1::GetHostRequest>,
    ) -> Result<Response<v1::GetHostResponse>, Status> {
        let name: HostName = parse("name", &request.into_inner().name)?;
        let unknown = || Status::not_found(format!("there is no host {name}; see sluice host list"));
        let host = self.fleet.host(&name).ok_or_else(unknown)?;
        let reports = self.reports(Some(&name)).await?.remove(&name).unwrap_or_default();
        Ok(Response::new(v1::GetHostResponse { host: Some(self.message(host, reports)) }))
    }

    async fn list_sites(
        &self,
        _: Request<v1::ListSitesRequest>,
    ) -> Result<Response<v1::ListSitesResponse>, Status> {
        let sites = self.fleet.sites().into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListSitesResponse { sites }))
    }

    async fn set_site_limit(
        &self,
        request: Request<v1::SetSiteLimitRequest>,
    ) -> Result<Response<v1::SetSiteLimitResponse>, Status> {
        let caller = Caller::of(&request)?.clone();
        let v1::SetSiteLimitRequest { site, limit_bytes_per_second } = request.into_inner();
        let site: SiteName = parse("site", &site)?;
        let limit = ByteRate::from_bytes_per_second(limit_bytes_per_second);
        let site = self.fleet.set_site_limit(&caller, &site, limit).await?;
        let site = site.map_err(|unknown| Status::not_found(unknown.to_string()))?;
        Ok(Response::new(v1::SetSiteLimitResponse { site: Some(site.into()) }))
    }
}

impl From<SiteView> for v1::Site {
    fn from(site: SiteView) -> Self {
        let SiteView { name, limit, hosts, hosts_connected, content_bytes } = site;
        Self {
            name: name.to_string(),
            limit_bytes_per_second: limit.map_or(0, ByteRate::bytes_per_second),
            hosts: u32::try_from(hosts).unwrap_or(u32::MAX),
            hosts_connected: u32::try_from(hosts_connected).unwrap_or(u32::MAX),
            content_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_twenty_thousand_hosts_fit_and_name_each_once() {
        let host = |number: usize| v1::Host {
            name: format!("h{number:05}"),
            site: "berlin".to_owned(),
            labels: (0..8).map(|label| (format!("label-{label}"), "value".to_owned())).collect(),
            ..v1::Host::default()
        };
        let all: Vec<v1::Host> = (0..20_000).map(host).collect();
        let (mut names, mut page, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let answer = page_of(all.iter().filter(|host| host.name > page).cloned());
            assert!(answer.encoded_len() < caps::GRPC_MESSAGE_BYTES_MAX / 2);
            names.extend(answer.hosts.into_iter().map(|host| host.name));
            pages += 1;
            if answer.next_page.is_empty() {
                break;
            }
            page = answer.next_page;
        }
        assert!(pages > 2 && names.len() == 20_000, "{pages} pages, {} hosts", names.len());
        assert!(names.is_sorted());
    }
}
