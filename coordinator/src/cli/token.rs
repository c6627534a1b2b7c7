//! `token create`: the token alone goes to stdout, what to do with it to stderr.

use jiff::Timestamp;
use serde::Serialize;
use sluice_proto::convert::millis;
use sluice_proto::v1;
use v1::create_token_request::Subject;

use super::Context;
use super::args::{TokenCommand, TokenCreateArgs};
use super::error::advise;
use super::exit::Exit;
use super::output::moment;

#[derive(Serialize)]
struct Token {
    token: String,
    expires_at: Option<Timestamp>,
}

pub(super) async fn run(context: &Context, command: TokenCommand) -> anyhow::Result<Exit> {
    match command {
        TokenCommand::Create(args) => create(context, args).await,
    }
}

async fn create(context: &Context, args: TokenCreateArgs) -> anyhow::Result<Exit> {
    let ttl_ms = millis(args.ttl);
    if ttl_ms == 0 {
        return Err(advise("a token that holds for no time is of no use", "write --ttl 30m, for example"));
    }
    let subject = subject(args)?;
    let next = match &subject {
        Subject::Host(_) => {
            "sluice-agent enroll --coordinator ADDRESS --token-file FILE --trust release.key.pub"
        }
        Subject::Operator(_) => "sluice login ADDRESS --token-file FILE",
    };
    let coordinator = context.connect().await?;
    let request = v1::CreateTokenRequest { subject: Some(subject), ttl_ms };
    let answer = coordinator.administration().create_token(request).await?.into_inner();
    let token = Token { token: answer.token, expires_at: Timestamp::from_second(answer.expires_unix).ok() };
    context.output.show(&token, || format!("{}\n", token.token))?;
    context.output.note(format_args!(
        "good until {}; it is shown only now. There: {}",
        moment(token.expires_at),
        next.replace("ADDRESS", &coordinator.address().to_string())
    ));
    Ok(Exit::Success)
}

fn subject(args: TokenCreateArgs) -> anyhow::Result<Subject> {
    let TokenCreateArgs { site, label, name, uses, operator, role, ttl: _ } = args;
    match (site, operator, role) {
        (Some(site), None, None) => Ok(Subject::Host(v1::HostTokenSubject {
            site: site.to_string(),
            labels: label.into_iter().collect(),
            name: name.map(|name| name.to_string()).unwrap_or_default(),
            uses,
        })),
        (None, Some(name), Some(role)) => {
            Ok(Subject::Operator(v1::OperatorTokenSubject { name: name.to_string(), role: role.to_string() }))
        }
        _ => Err(advise("a token is for a host or for an operator", "give --site, or --operator and --role")),
    }
}
