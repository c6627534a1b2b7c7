//! `sluice-agent enroll`: makes this host's key, exchanges a join token for a certificate, writes a first configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sluice_common::caps;
use sluice_common::durable;
use sluice_common::keys::PublicKey;
use sluice_common::name::HostName;
use sluice_proto::token::JoinToken;
use sluice_proto::transport::client::{Address, Dial};
use sluice_proto::transport::credentials::NewKey;
use sluice_proto::transport::tls;
use sluice_proto::v1;
use sluice_proto::v1::enrollment_client::EnrollmentClient;

use crate::config::{self, Config};
use crate::{directories, facts, identity, layout};

/// What an operator says when a host is enrolled.
#[derive(Debug)]
pub(crate) struct Enrolment {
    /// The coordinator.
    pub(crate) coordinator: Address,
    /// Where the join token stands; nothing: the environment.
    pub(crate) token_file: Option<PathBuf>,
    /// The name that is asked for; nothing: the host's own.
    pub(crate) name: Option<HostName>,
    /// Labels that are claimed.
    pub(crate) labels: Vec<(String, String)>,
    /// Files of release keys to trust.
    pub(crate) trust: Vec<PathBuf>,
    /// The configuration to write.
    pub(crate) config: PathBuf,
    /// State and identity.
    pub(crate) data: Option<PathBuf>,
    /// The applications.
    pub(crate) root: Option<PathBuf>,
}

/// Enrols this host and returns its name.
pub(crate) async fn enroll(enrolment: Enrolment) -> anyhow::Result<HostName> {
    let token = read_token(enrolment.token_file.as_deref())?;
    let name = match &enrolment.name {
        Some(name) => name.clone(),
        None => own_name()?,
    };
    if enrolment.labels.len() > caps::LABELS_MAX {
        bail!("{} labels are given; a host has at most {}", enrolment.labels.len(), caps::LABELS_MAX);
    }
    let (data, _) = prepare(&enrolment)?;
    let path = layout::identity(&data);
    if path.exists() {
        bail!(
            "this host is enrolled already: {} exists; to enrol it anew, stop the agent and remove that file",
            path.display()
        );
    }
    let key = NewKey::generate()?;
    let tls = tls::newcomer(token.authority())?;
    let channel = Dial::new(enrolment.coordinator.clone(), tls)
        .connect()
        .await
        .context("if the coordinator is reachable, it may not be the one that issued the token")?;
    let request = v1::EnrollRequest {
        token: token.secret().to_owned(),
        csr_pem: key.request_pem()?,
        name: name.to_string(),
        labels: enrolment.labels.into_iter().collect::<HashMap<_, _>>(),
    };
    let response = EnrollmentClient::new(channel).enroll(request).await;
    let response = match response {
        Ok(response) => response.into_inner(),
        Err(status) => bail!("the coordinator refuses to enrol this host: {}", status.message()),
    };
    let credentials = key.into_credentials(&response.certificate_pem, &response.ca_pem)?;
    let authority = sluice_common::digest::Digest::of(&credentials.authority()?);
    if authority != token.authority() {
        bail!("the coordinator answered with another authority than the token's; nothing was kept");
    }
    let (_, host) = identity::read(&credentials)?;
    credentials.store(&path)?;
    Ok(host)
}

/// Writes the configuration where there is none, and makes the directories; returns data and root.
fn prepare(enrolment: &Enrolment) -> anyhow::Result<(PathBuf, PathBuf)> {
    let path = &enrolment.config;
    if path.exists() {
        let config = Config::load(path)?;
        tracing::info!(path = %path.display(), "configuration exists already and is left as it is");
        for (option, given, configured) in
            [("--data", &enrolment.data, &config.data), ("--root", &enrolment.root, &config.root)]
        {
            if given.as_ref().is_some_and(|given| given != configured) {
                bail!(
                    "{} says {} and {option} says otherwise; make them agree",
                    path.display(),
                    configured.display()
                );
            }
        }
        directories::create(&config.data, &config.root)?;
        return Ok((config.data, config.root));
    }
    if enrolment.trust.is_empty() {
        bail!(
            "no release key is trusted, so nothing could run here; name the release engineers' key with --trust FILE.pub"
        );
    }
    let keys = enrolment.trust.iter().map(|file| {
        PublicKey::load(file).with_context(|| format!("cannot read the release key {}", file.display()))
    });
    let keys: Vec<PublicKey> = keys.collect::<anyhow::Result<_>>()?;
    let whole = |path: &Option<PathBuf>, default: &str| {
        std::path::absolute(path.clone().unwrap_or_else(|| default.into()))
    };
    let data = whole(&enrolment.data, config::DEFAULT_DATA)?;
    let root = whole(&enrolment.root, config::DEFAULT_ROOT)?;
    directories::create(&data, &root)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs_err::create_dir_all(parent)?;
    }
    let text = config::template(&enrolment.coordinator, &data, &root, &keys);
    durable::write_public(path, text.as_bytes())?;
    tracing::info!(path = %path.display(), "configuration is written");
    Ok((data, root))
}

fn read_token(file: Option<&Path>) -> anyhow::Result<JoinToken> {
    let text = match file {
        Some(path) if path == Path::new("-") => std::io::read_to_string(std::io::stdin())?,
        Some(path) => fs_err::read_to_string(path)?,
        None => std::env::var("SLUICE_TOKEN").map_err(|_| {
            anyhow::anyhow!("no join token; name its file with --token-file FILE, or set SLUICE_TOKEN")
        })?,
    };
    Ok(text.parse()?)
}

/// Returns the host's own name in the form that names take.
fn own_name() -> anyhow::Result<HostName> {
    let name = facts::hostname().unwrap_or_default().to_ascii_lowercase();
    name.parse().with_context(|| "this host's own name is no name for an agent; give one with --name")
}
