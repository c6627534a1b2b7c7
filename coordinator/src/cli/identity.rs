//! `login` and `whoami`.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use fs_err as fs;
use jiff::Timestamp;
use serde::Serialize;
use sluice_proto::token::JoinToken;
use sluice_proto::transport::client::Dial;
use sluice_proto::transport::credentials::NewKey;
use sluice_proto::transport::tls;
use sluice_proto::v1;
use tonic::{Code, Status};
use v1::enrollment_client::EnrollmentClient;

use super::Context;
use super::args::LoginArgs;
use super::error::{advise, insist};
use super::exit::Exit;
use super::output::{moment, pairs};

/// The variable that may hold a token.
const TOKEN_VARIABLE: &str = "SLUICE_TOKEN";
/// Longest token file read: a token has about 140 bytes.
const TOKEN_BYTES_MAX: u64 = 4096;

#[derive(Serialize)]
struct Identity {
    principal: String,
    role: String,
    coordinator: String,
    coordinator_version: String,
    client_version: &'static str,
    certificate_expires_at: Option<Timestamp>,
}

/// Enrols as an operator and keeps the identity.
pub(super) async fn login(context: &Context, args: LoginArgs) -> anyhow::Result<Exit> {
    let LoginArgs { address, token_file } = args;
    let token = read_token(token_file.as_deref())?;
    // Before the token is spent: what follows must have a place to stay.
    context.home.create()?;
    let key = NewKey::generate()?;
    let channel = Dial::new(address.clone(), tls::newcomer(token.authority())?)
        .connect()
        .await
        .context("cannot reach the coordinator that made this token")?;
    let request = v1::EnrollRequest {
        token: token.secret().to_owned(),
        csr_pem: key.request_pem()?,
        name: String::new(),
        labels: Default::default(),
    };
    let enrolled = EnrollmentClient::new(channel).enroll(request).await.map_err(refused)?.into_inner();
    let credentials = key.into_credentials(&enrolled.certificate_pem, &enrolled.ca_pem)?;
    context.home.store(&credentials, &address)?;
    context.output.note(format_args!("logged in to {address} as {}", enrolled.principal));
    whoami(context, Some(&address)).await
}

fn refused(status: Status) -> anyhow::Error {
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => anyhow::Error::msg(status.message().to_owned())
            .context(insist(
                "the token was not accepted",
                "a token holds for one use and a short time; ask for a new one, made for an operator",
            )),
        _ => anyhow::Error::from(status).context("cannot enrol"),
    }
}

/// Shows the caller's identity, as the coordinator sees it.
pub(super) async fn whoami(
    context: &Context,
    address: Option<&sluice_proto::transport::client::Address>,
) -> anyhow::Result<Exit> {
    let coordinator = context.connect_to(address).await?;
    let answer = coordinator.administration().who_am_i(v1::WhoAmIRequest {}).await?.into_inner();
    let v1::WhoAmIResponse { principal, role, certificate_expires_unix, coordinator_version } = answer;
    let identity = Identity {
        principal,
        role,
        coordinator: coordinator.address().to_string(),
        coordinator_version,
        client_version: env!("CARGO_PKG_VERSION"),
        certificate_expires_at: Timestamp::from_second(certificate_expires_unix).ok(),
    };
    context.output.show(&identity, || {
        pairs(&[
            ("principal", identity.principal.clone()),
            ("role", identity.role.clone()),
            ("certificate until", moment(identity.certificate_expires_at)),
            ("coordinator", format!("{} (version {})", identity.coordinator, identity.coordinator_version)),
            ("this sluice", format!("version {}", identity.client_version)),
        ])
    })?;
    Ok(Exit::Success)
}

/// Takes the token from a file, from stdin or from the environment; never from the arguments, which others can see.
fn read_token(file: Option<&Path>) -> anyhow::Result<JoinToken> {
    let mut text = String::new();
    match file {
        Some(path) if path == Path::new("-") => {
            std::io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text).context("cannot read stdin")?;
        }
        Some(path) => {
            fs::File::open(path)?
                .take(TOKEN_BYTES_MAX)
                .read_to_string(&mut text)
                .with_context(|| format!("cannot read the token file {}", path.display()))?;
        }
        None => text = std::env::var(TOKEN_VARIABLE).map_err(|_| no_token())?,
    }
    Ok(text.parse::<JoinToken>()?)
}

fn no_token() -> anyhow::Error {
    advise(
        "no token was given",
        format_args!(
            "give the file that holds it by --token-file FILE (- for stdin), or set {TOKEN_VARIABLE}"
        ),
    )
}
