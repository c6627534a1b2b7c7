//! `notify`: who is told of what rollouts do.

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use sluice_proto::v1;

use super::Context;
use super::args::NotifyCommand;
use super::error::context as advice;
use super::exit::Exit;
use super::output::{moment, one_line, or_dash, table};
use super::view::{at_millis, text};

#[derive(Serialize)]
struct Listeners {
    listeners: Vec<Listener>,
}

#[derive(Serialize)]
struct Added {
    listener: Listener,
    secret: String,
}

#[derive(Serialize)]
struct Tested {
    delivered: bool,
    answer: String,
}

#[derive(Serialize)]
struct Removed {
    removed: String,
}

/// A web address that is told.
#[derive(Debug, Serialize)]
struct Listener {
    name: String,
    url: String,
    events: Vec<String>,
    created_at: Option<Timestamp>,
    created_by: String,
    waiting: u64,
    dropped: u64,
    delivered_at: Option<Timestamp>,
    error: Option<String>,
}

impl From<v1::Listener> for Listener {
    fn from(message: v1::Listener) -> Self {
        let v1::Listener {
            name,
            url,
            events,
            created_unix_ms,
            created_by,
            waiting,
            dropped,
            delivered_unix_ms,
            error,
        } = message;
        Self {
            name,
            url,
            events,
            created_at: at_millis(created_unix_ms),
            created_by,
            waiting,
            dropped,
            delivered_at: at_millis(delivered_unix_ms),
            error: text(error),
        }
    }
}

pub(super) async fn run(context: &Context, command: NotifyCommand) -> anyhow::Result<Exit> {
    let mut notifications = context.connect().await?.notifications();
    match command {
        NotifyCommand::Add { name, url, events } => {
            let failed =
                || advice(format!("cannot add {name}"), "sluice notify list shows who is told already");
            let request = v1::AddListenerRequest { name: name.clone(), url, events };
            let answer = notifications.add(request).await.with_context(failed)?.into_inner();
            let listener = answer.listener.context("the coordinator answered without a listener")?.into();
            let added = Added { listener, secret: answer.secret };
            context.output.show(&added, || format!("{}\n", added.secret))?;
            context.output.note(format_args!(
                "notifications to {name} are signed with this secret, which is not shown again; try it with sluice notify test {name}"
            ));
            Ok(Exit::Success)
        }
        NotifyCommand::List => {
            let answer = notifications.list(v1::ListListenersRequest {}).await?.into_inner();
            let listeners =
                Listeners { listeners: answer.listeners.into_iter().map(Listener::from).collect() };
            context.output.show(&listeners, || listener_table(&listeners.listeners))?;
            Ok(Exit::Success)
        }
        NotifyCommand::Test { name } => {
            let answer = notifications.test(v1::TestListenerRequest { name: name.clone() }).await;
            let v1::TestListenerResponse { delivered, answer } =
                answer.with_context(|| no_such(&name))?.into_inner();
            let tested = Tested { delivered, answer };
            let word = if delivered { "took it" } else { "was not told" };
            context.output.show(&tested, || format!("{name} {word}: {}\n", one_line(&tested.answer)))?;
            Ok(if delivered { Exit::Success } else { Exit::Error })
        }
        NotifyCommand::Remove { name } => {
            let request = v1::RemoveListenerRequest { name: name.clone() };
            notifications.remove(request).await.with_context(|| no_such(&name))?;
            let removed = Removed { removed: name };
            context.output.show(&removed, || format!("{} is told nothing more\n", removed.removed))?;
            Ok(Exit::Success)
        }
    }
}

fn no_such(name: &str) -> super::error::Advice {
    advice(format!("cannot use the listener {name}"), "sluice notify list shows who is told")
}

fn listener_table(listeners: &[Listener]) -> String {
    let rows = listeners.iter().map(|listener| {
        let events = if listener.events.is_empty() { "all".to_owned() } else { listener.events.join(",") };
        vec![
            listener.name.clone(),
            listener.url.clone(),
            events,
            listener.waiting.to_string(),
            listener.dropped.to_string(),
            listener.delivered_at.map_or_else(|| "-".to_owned(), |at| moment(Some(at))),
            or_dash(&one_line(listener.error.as_deref().unwrap_or_default())),
        ]
    });
    let header = ["NAME", "URL", "EVENTS", "WAITING", "DROPPED", "DELIVERED", "ERROR"];
    table(&header, &["WAITING", "DROPPED"], rows.collect())
}
