//! The one place where errors become text: `error: ...`, its causes, and a hint what to do next.
//!
//! Wire and TLS errors are spelled out here; everything below passes them on untouched.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use rustls::CertificateError;
use sluice_common::keys::KeyError;
use sluice_proto::token::TokenError;
use sluice_proto::transport::client::ConnectError;
use sluice_proto::transport::credentials::CredentialsError;
use tonic::{Code, Status};

use super::output;

/// An error that knows what its reader can do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Advice {
    message: String,
    hint: String,
    /// Whether a cause that knows better may speak instead.
    yields: bool,
}

/// Makes an error with a hint.
pub(super) fn advise(message: impl ToString, hint: impl ToString) -> anyhow::Error {
    insist(message, hint).into()
}

/// Makes a context, for [`anyhow::Context`], whose hint fits whatever the cause is.
pub(super) fn insist(message: impl ToString, hint: impl ToString) -> Advice {
    Advice { message: message.to_string(), hint: hint.to_string(), yields: false }
}

/// Makes a context, for [`anyhow::Context`], whose hint fits unless the connection or the caller's rights are the cause.
pub(super) fn context(message: impl ToString, hint: impl ToString) -> Advice {
    Advice { yields: true, ..insist(message, hint) }
}

/// Formats an error with its causes and its hint; several lines, without a last line break.
pub(super) fn render(error: &anyhow::Error) -> String {
    let mut text = String::from("error: ");
    let causes = causes(error);
    for (depth, cause) in causes.iter().enumerate() {
        if depth > 0 {
            text.push_str("\n  because: ");
        }
        // Messages of several lines, such as a parser's, keep their shape.
        text.push_str(&output::clean(cause).replace('\n', "\n    "));
    }
    let says_what_to_do = causes.last().is_some_and(|cause| cause.contains("sluice "));
    if let Some(hint) = hint(error, says_what_to_do) {
        let _ = write!(text, "\nhint: {}", output::clean(&hint).replace('\n', "\n      "));
    }
    text
}

/// Returns the messages from the outermost to the root, without those that say nothing or repeat the one before.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        if let Some(text) = describe(cause) {
            let text = text.trim().to_owned();
            if !texts.last().is_some_and(|last| last.contains(&text)) {
                texts.push(text);
            }
        }
    }
    texts
}

fn describe(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(status) = cause.downcast_ref::<Status>() {
        return describe_status(status);
    }
    if let Some(tls) = tls_error(cause) {
        return Some(describe_tls(tls));
    }
    if let Some(io) = cause.downcast_ref::<io::Error>() {
        return Some(describe_io(io));
    }
    let text = cause.to_string();
    // tonic, hyper and h2 wrap what matters in words that do not.
    let is_noise = cause.source().is_some()
        && (cause.is::<tonic::transport::Error>()
            || text == "connection error"
            || text.starts_with("client error"));
    (!is_noise).then(|| alert(&text).map_or(text, str::to_owned))
}

/// Spells out a TLS alert that HTTP/2 has made a text of.
fn alert(text: &str) -> Option<&'static str> {
    match text.strip_prefix("received fatal alert: ")? {
        "CertificateExpired" => Some(EXPIRED),
        "UnknownCA" | "BadCertificate" | "CertificateUnknown" | "CertificateRevoked" | "DecryptError"
        | "AccessDenied" => Some(REFUSED),
        _ => None,
    }
}

const EXPIRED: &str = "your certificate has expired";
const REFUSED: &str = "the coordinator refuses your certificate";

fn describe_status(status: &Status) -> Option<String> {
    // Made on this side of the connection: its source says more.
    if status.source().is_some() {
        return Some("the connection to the coordinator broke".to_owned());
    }
    let what = match status.code() {
        Code::Ok => return None,
        Code::Unauthenticated => "the coordinator does not know you",
        Code::PermissionDenied => "you may not do this",
        Code::NotFound => "not found",
        Code::AlreadyExists => "exists already",
        Code::InvalidArgument => "the coordinator refuses the request",
        Code::FailedPrecondition | Code::Aborted | Code::OutOfRange => "not possible now",
        Code::ResourceExhausted => "the coordinator is at its limit",
        Code::DeadlineExceeded => "the coordinator did not answer in time",
        Code::Unavailable => "the coordinator is not available",
        Code::Unimplemented => "the coordinator does not offer this",
        Code::Cancelled => "the coordinator ended the request",
        Code::Internal | Code::Unknown | Code::DataLoss => "the coordinator failed",
    };
    match status.message() {
        "" => Some(what.to_owned()),
        message => Some(format!("{what}: {message}")),
    }
}

fn tls_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| inner.downcast_ref()).or_else(|| cause.downcast_ref())
}

fn describe_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "the coordinator's certificate is not by the authority that you trust".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "the coordinator's certificate does not hold at this machine's time".to_owned(),
        rustls::Error::InvalidMessage(_) => "what answers there does not speak TLS 1.3".to_owned(),
        // HTTP/2 keeps only the text of an alert, so that is what is told apart.
        other => alert(&other.to_string()).map_or_else(|| format!("TLS: {other}"), str::to_owned),
    }
}

fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            if error.get_ref().is_none() =>
        {
            "the other side closed the connection".to_owned()
        }
        _ => error.to_string(),
    }
}

/// What to do without an identity that holds.
pub(super) const LOG_IN: &str = "ask an administrator for a token (sluice token create --operator NAME --role ROLE), \
                      then run sluice login ADDRESS --token-file FILE";

/// Returns what the reader can do: firm advice, else what the innermost known cause asks for, else general advice,
/// unless the error `says_what_to_do` itself.
fn hint(error: &anyhow::Error, says_what_to_do: bool) -> Option<String> {
    let advice = error.downcast_ref::<Advice>().map(|advice| (advice.yields, advice.hint.clone()));
    let causes: Vec<&(dyn Error + 'static)> = error.chain().collect();
    let specific = || causes.iter().rev().find_map(|cause| hint_for(*cause));
    match advice {
        Some((false, hint)) => Some(hint),
        Some((true, hint)) => specific().or((!says_what_to_do).then_some(hint)),
        None => specific(),
    }
}

fn hint_for(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(advice) = cause.downcast_ref::<Advice>() {
        return Some(advice.hint.clone());
    }
    if let Some(status) = cause.downcast_ref::<Status>() {
        return hint_for_status(status);
    }
    if let Some(tls) = tls_error(cause) {
        return Some(hint_for_tls(tls));
    }
    if alert(&cause.to_string()).is_some() {
        return Some(LOG_IN.to_owned());
    }
    if let Some(ConnectError::Connect { address, .. }) = cause.downcast_ref::<ConnectError>() {
        return Some(format!(
            "is sluice-coordinator running at {address}, and may this machine reach it? \
             Another address can be given by --coordinator ADDRESS"
        ));
    }
    if cause.is::<TokenError>() {
        return Some(LOG_IN.to_owned());
    }
    match cause.downcast_ref::<KeyError>() {
        Some(KeyError::Parse { .. }) => Some("sluice key new FILE makes a key".to_owned()),
        Some(KeyError::Exists(_)) => Some("choose another file name".to_owned()),
        Some(KeyError::Exposed { .. } | KeyError::Io(_) | KeyError::Random) => None,
        None => cause.is::<CredentialsError>().then(|| LOG_IN.to_owned()),
    }
}

fn hint_for_status(status: &Status) -> Option<String> {
    if status.source().is_some() {
        return Some(format!(
            "if this repeats, the coordinator's log says why; it may not accept your certificate: {LOG_IN}"
        ));
    }
    match status.code() {
        Code::Unauthenticated => Some(LOG_IN.to_owned()),
        Code::PermissionDenied => Some(
            "sluice whoami shows your role; an administrator can give you a token for another".to_owned(),
        ),
        Code::Unavailable | Code::DeadlineExceeded => {
            Some("is the coordinator starting or overloaded? Try again in a moment".to_owned())
        }
        Code::Unimplemented => {
            Some("is the coordinator older than this sluice? sluice whoami shows both".to_owned())
        }
        Code::Internal | Code::Unknown | Code::DataLoss => Some("the coordinator's log says more".to_owned()),
        _ => None,
    }
}

fn hint_for_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::AlertReceived(_) => LOG_IN.to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "check the clocks of this machine and of the coordinator".to_owned(),
        rustls::Error::InvalidCertificate(_) => {
            "is this the address of the coordinator that you logged in to? \
             If its authority was made anew, log in again with a new token"
                .to_owned()
        }
        _ => "is this the address and port of a sluice-coordinator?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn text(error: impl Into<anyhow::Error>) -> String {
        render(&error.into())
    }

    #[test]
    fn the_chain_is_printed_once_with_a_hint_below() {
        let error = anyhow::Error::from(io::Error::other("disk is gone"))
            .context("cannot read /x")
            .context("cannot read /x: again");
        assert_eq!(text(error), "error: cannot read /x: again\n  because: disk is gone");
        assert_eq!(text(advise("a", "b")), "error: a\nhint: b");
        let inner: anyhow::Result<()> = Err(advise("no such file", "make one"));
        assert_eq!(
            text(inner.context("cannot go on").unwrap_err()),
            "error: cannot go on\n  because: no such file\nhint: make one"
        );
    }

    #[test]
    fn every_refusal_of_the_coordinator_reads_as_a_sentence() {
        for (status, message, hint) in [
            (Status::unauthenticated("no certificate"), "does not know you: no certificate", "sluice login"),
            (
                Status::permission_denied("needs the role admin"),
                "you may not do this: needs the role admin",
                "whoami",
            ),
            (Status::not_found("rollout r9"), "not found: rollout r9", ""),
            (Status::unavailable("shutting down"), "not available: shutting down", "Try again"),
            (Status::unimplemented(""), "does not offer this", "older"),
            (Status::internal("disk"), "failed: disk", "log"),
            (Status::failed_precondition("r1 has ended"), "not possible now: r1 has ended", ""),
        ] {
            let text = text(status);
            assert!(text.contains(message), "{text}");
            assert!(text.contains(hint), "{text}");
            assert_eq!(text.contains("hint:"), !hint.is_empty(), "{text}");
            assert!(!text.contains("status:") && !text.contains("code:"), "{text}");
        }
    }

    #[test]
    fn general_advice_yields_to_a_cause_that_knows_better() {
        for (status, insisting, expected) in [
            (Status::not_found("x"), false, "list"),
            (Status::permission_denied("x"), false, "whoami"),
            (Status::permission_denied("x"), true, "list"),
        ] {
            let advice = if insisting { insist("cannot", "list") } else { context("cannot", "list") };
            let text = text(anyhow::Error::from(status).context(advice));
            assert!(text.lines().last().unwrap().contains(expected), "{text}");
        }
    }

    #[test]
    fn general_advice_is_not_given_where_the_coordinator_gave_better() {
        let refusal = Status::failed_precondition("r1 is under way; see: sluice rollout show r1");
        let text = text(anyhow::Error::from(refusal).context(context("cannot start", "list")));
        assert!(text.ends_with("see: sluice rollout show r1"), "{text}");
    }

    #[test]
    fn tls_errors_are_spelled_out_wherever_they_hide() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateExpired);
        let hidden = io::Error::other(alert);
        let text = text(anyhow::Error::from(hidden).context("cannot connect"));
        assert!(
            text.contains("because: your certificate has expired") && text.contains("sluice login"),
            "{text}"
        );
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(render(&anyhow::Error::from(unknown)).contains("not by the authority that you trust"));
    }

    #[test]
    fn text_from_elsewhere_cannot_drive_the_terminal() {
        assert!(!text(Status::not_found("\x1b[2Jgone\r")).contains(['\x1b', '\r']));
    }
}
