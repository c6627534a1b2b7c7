//! Connections to the coordinator: dialled with the operator's identity, which renews itself on the way.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use rustls::ClientConfig;
use sluice_common::caps;
use sluice_proto::transport::client::{Address, ConnectError, Dial};
use sluice_proto::transport::credentials::{Credentials, NewKey};
use sluice_proto::transport::metered::Meter;
use sluice_proto::transport::peer::PeerCertificate;
use sluice_proto::transport::tls;
use sluice_proto::v1;
use tonic::transport::Channel;
use v1::administration_client::AdministrationClient;
use v1::depot_client::DepotClient;
use v1::environments_client::EnvironmentsClient;
use v1::fleet_client::FleetClient;
use v1::forecasts_client::ForecastsClient;
use v1::notifications_client::NotificationsClient;
use v1::packages_client::PackagesClient;
use v1::records_client::RecordsClient;
use v1::rollouts_client::RolloutsClient;
use v1::session_client::SessionClient;

use super::error::{LOG_IN, advise};
use super::home::Home;
use super::output::moment;
use super::push::Line;

/// A connection, and how to make another.
#[derive(Clone)]
pub(super) struct Coordinator {
    address: Address,
    tls: Arc<ClientConfig>,
    channel: Channel,
    meter: Arc<Meter>,
}

impl Coordinator {
    /// Connects to `address`, else to the coordinator that was logged in to.
    pub(super) async fn connect(home: &Home, address: Option<&Address>) -> anyhow::Result<Self> {
        let credentials = home.credentials()?;
        let now = Timestamp::now();
        refuse_expired(&credentials, now)?;
        let address = match address {
            Some(address) => address.clone(),
            None => home.coordinator()?,
        };
        let tls = tls::client(&credentials).context("cannot use your identity")?;
        let (channel, meter) = dial(&address, &tls, caps::KEEPALIVE_TIMEOUT).await?;
        let mut coordinator = Self { address, tls, channel, meter };
        if is_due(&credentials, now) {
            coordinator.renew(home).await;
        }
        Ok(coordinator)
    }

    /// Returns where the coordinator is.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Makes a further connection.
    pub(super) async fn redial(&self) -> anyhow::Result<Channel> {
        Ok(dial(&self.address, &self.tls, caps::KEEPALIVE_TIMEOUT).await?.0)
    }

    /// Returns the connection there is, to push over it.
    pub(super) fn line(&self) -> Line {
        Line::shared(self.channel.clone(), self.meter.clone())
    }

    /// Makes a further connection, to push over it: a keepalive may wait behind what is pushed.
    pub(super) async fn new_line(&self) -> anyhow::Result<Line> {
        let timeout = caps::CONTENT_KEEPALIVE_TIMEOUT;
        let (channel, meter) = dial(&self.address, &self.tls, timeout).await?;
        Ok(Line::new(channel, meter))
    }

    pub(super) fn administration(&self) -> AdministrationClient<Channel> {
        AdministrationClient::new(self.channel.clone())
    }

    pub(super) fn depot(&self) -> DepotClient<Channel> {
        DepotClient::new(self.channel.clone())
    }

    pub(super) fn environments(&self) -> EnvironmentsClient<Channel> {
        EnvironmentsClient::new(self.channel.clone())
    }

    pub(super) fn fleet(&self) -> FleetClient<Channel> {
        FleetClient::new(self.channel.clone())
    }

    pub(super) fn forecasts(&self) -> ForecastsClient<Channel> {
        ForecastsClient::new(self.channel.clone())
    }

    pub(super) fn packages(&self) -> PackagesClient<Channel> {
        PackagesClient::new(self.channel.clone())
    }

    pub(super) fn records(&self) -> RecordsClient<Channel> {
        RecordsClient::new(self.channel.clone())
    }

    pub(super) fn notifications(&self) -> NotificationsClient<Channel> {
        NotificationsClient::new(self.channel.clone())
    }

    pub(super) fn rollouts(&self) -> RolloutsClient<Channel> {
        RolloutsClient::new(self.channel.clone())
    }

    /// Renews the certificate. The old one still holds, so a failure is only worth a warning.
    async fn renew(&mut self, home: &Home) {
        match self.try_renew(home).await {
            Ok(()) => tracing::info!("certificate renewed"),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "cannot renew the certificate"),
        }
    }

    async fn try_renew(&mut self, home: &Home) -> anyhow::Result<()> {
        let key = NewKey::generate()?;
        let request = v1::RenewRequest { csr_pem: key.request_pem()? };
        let renewed = SessionClient::new(self.channel.clone()).renew(request).await?.into_inner();
        let credentials = key.into_credentials(&renewed.certificate_pem, &renewed.ca_pem)?;
        home.store_credentials(&credentials)?;
        self.tls = tls::client(&credentials)?;
        Ok(())
    }
}

async fn dial(
    address: &Address,
    tls: &Arc<ClientConfig>,
    keepalive_timeout: Duration,
) -> Result<(Channel, Arc<Meter>), ConnectError> {
    let dial = Dial { keepalive_timeout, ..Dial::new(address.clone(), tls.clone()) };
    let meter = dial.meter.clone();
    Ok((dial.connect().await?, meter))
}

/// Reads the certificate. One that cannot be read is left for the coordinator to refuse.
fn certificate(credentials: &Credentials) -> Option<PeerCertificate> {
    credentials.certificate().ok().and_then(|der| PeerCertificate::parse(&der).ok())
}

/// Says whether the certificate is past half of its life.
fn is_due(credentials: &Credentials, now: Timestamp) -> bool {
    certificate(credentials).is_some_and(|certificate| now >= certificate.renew_at(0.0))
}

fn refuse_expired(credentials: &Credentials, now: Timestamp) -> anyhow::Result<()> {
    match certificate(credentials) {
        Some(certificate) if now >= certificate.not_after => Err(advise(
            format_args!(
                "your certificate has expired at {}: it renews itself only while it is used",
                moment(Some(certificate.not_after))
            ),
            LOG_IN,
        )),
        Some(_) | None => Ok(()),
    }
}
