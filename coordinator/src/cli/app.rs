//! `app`: what ran where, and whether an application takes new rollouts.

use anyhow::Context as _;
use serde::Serialize;
use sluice_common::name::{AppName, HostName};
use sluice_proto::v1;

use super::Context;
use super::args::AppCommand;
use super::error::context as advice;
use super::exit::Exit;
use super::output::{moment, one_line, or_dash, table};
use super::view::rollout::{HistoryEntry, LineStop};
use super::view::{Installed, short};

#[derive(Serialize)]
struct History {
    history: Vec<HistoryEntry>,
    stops: Vec<LineStop>,
}

#[derive(Serialize)]
struct Line {
    app: String,
    closed: bool,
    stops: Vec<LineStop>,
}

pub(super) async fn run(context: &Context, command: AppCommand) -> anyhow::Result<Exit> {
    match command {
        AppCommand::History { app, host, limit } => history(context, app, host, limit).await,
        AppCommand::Show { app, limit } => show(context, app, limit).await,
        AppCommand::Reopen { app, cause } => reopen(context, app, cause).await,
    }
}

async fn show(context: &Context, app: AppName, limit: u32) -> anyhow::Result<Exit> {
    let request = v1::GetAppRequest { app: app.to_string(), limit };
    let v1::GetAppResponse { closed, stops } =
        context.connect().await?.rollouts().get_app(request).await?.into_inner();
    let line = Line { app: app.to_string(), closed, stops: stops.into_iter().map(LineStop::from).collect() };
    context.output.show(&line, || line_text(&line))?;
    if closed {
        context.output.note(format_args!(
            "once the cause is found, open it with sluice app reopen {app} --cause \"...\""
        ));
    }
    Ok(Exit::Success)
}

async fn reopen(context: &Context, app: AppName, cause: String) -> anyhow::Result<Exit> {
    let request = v1::ReopenAppRequest { app: app.to_string(), cause };
    let failed =
        || advice(format!("cannot reopen {app}"), format!("sluice app show {app} says how it stands"));
    let answer =
        context.connect().await?.rollouts().reopen_app(request).await.with_context(failed)?.into_inner();
    let stops: Vec<LineStop> = answer.stops.into_iter().map(LineStop::from).collect();
    let line = Line { app: app.to_string(), closed: false, stops };
    context.output.show(&line, || format!("{}\n", opened(&line)))?;
    Ok(Exit::Success)
}

fn opened(line: &Line) -> String {
    let by: Vec<&str> = line.stops.iter().map(|stop| stop.rollout.as_str()).collect();
    match by.as_slice() {
        [] => format!("{} was open to new rollouts", line.app),
        by => format!("{} is open to new rollouts again; {} had closed it", line.app, by.join(", ")),
    }
}

fn line_text(line: &Line) -> String {
    let standing = line.stops.iter().find(|stop| stop.reopened_at.is_none()).filter(|_| line.closed);
    let mut text = match standing {
        Some(stop) => format!(
            "{} is closed to new rollouts since {} failed at {}: {}\n",
            line.app,
            stop.rollout,
            moment(stop.stopped_at),
            one_line(&stop.reason)
        ),
        None if line.closed => format!("{} is closed to new rollouts\n", line.app),
        None => format!("{} is open to new rollouts\n", line.app),
    };
    if !line.stops.is_empty() {
        text.push('\n');
        text.push_str(&stop_table(&line.stops));
    }
    text
}

fn stop_table(stops: &[LineStop]) -> String {
    let rows = stops.iter().map(|stop| {
        vec![
            moment(stop.stopped_at),
            stop.rollout.clone(),
            or_dash(&one_line(&stop.reason)),
            stop.reopened_at.map_or_else(|| "-".to_owned(), |at| moment(Some(at))),
            or_dash(stop.reopened_by.as_deref().unwrap_or_default()),
            or_dash(&one_line(stop.cause.as_deref().unwrap_or_default())),
        ]
    });
    table(&["CLOSED", "ROLLOUT", "REASON", "REOPENED", "BY", "CAUSE"], &[], rows.collect())
}

async fn history(
    context: &Context,
    app: AppName,
    host: Option<HostName>,
    limit: u32,
) -> anyhow::Result<Exit> {
    let host = host.map(|host| host.to_string()).unwrap_or_default();
    let request = v1::AppHistoryRequest { app: app.to_string(), host, limit };
    let answer = context.connect().await?.rollouts().app_history(request).await?.into_inner();
    let v1::AppHistoryResponse { entries, stops } = answer;
    let history = History {
        history: entries.into_iter().map(HistoryEntry::from).collect(),
        stops: stops.into_iter().map(LineStop::from).collect(),
    };
    context.output.show(&history, || history_text(&history))?;
    Ok(Exit::Success)
}

fn history_text(history: &History) -> String {
    let switches = history_table(&history.history);
    match history.stops.as_slice() {
        [] => switches,
        stops => format!("{switches}\nclosed to new rollouts:\n{}", stop_table(stops)),
    }
}

fn history_table(entries: &[HistoryEntry]) -> String {
    let name = |installed: &Option<Installed>| match installed {
        Some(installed) => format!("{} ({})", installed.version, short(&installed.package)),
        None => "nothing".to_owned(),
    };
    let rows = entries.iter().map(|entry| {
        vec![
            moment(entry.at),
            entry.host.clone(),
            name(&entry.from),
            name(&entry.to),
            or_dash(&entry.rollout),
            or_dash(entry.reason.as_deref().unwrap_or_default()),
        ]
    });
    table(&["AT", "HOST", "FROM", "TO", "ROLLOUT", "REASON"], &[], rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(rollout: &str, cause: Option<&str>) -> LineStop {
        let reopened = cause.map(|_| 1_800_000_600_000).unwrap_or_default();
        LineStop::from(v1::LineStop {
            app: "shop".into(),
            rollout: rollout.into(),
            reason: "h1 went back by itself".into(),
            stopped_unix_ms: 1_800_000_000_000,
            reopened_unix_ms: reopened,
            reopened_by: cause.map(|_| "bob".to_owned()).unwrap_or_default(),
            cause: cause.unwrap_or_default().into(),
        })
    }

    #[test]
    fn an_application_says_whether_it_is_open_and_what_closed_it() {
        let line = |closed, stops| Line { app: "shop".into(), closed, stops };
        assert_eq!(line_text(&line(false, vec![])), "shop is open to new rollouts\n");
        let closed = line_text(&line(true, vec![stop("r7", None), stop("r3", Some("a lock"))]));
        let first = "shop is closed to new rollouts since r7 failed at 2027-01-15 08:00:00Z: h1 went back by itself\n";
        assert!(closed.starts_with(first), "{closed}");
        assert!(closed.contains("2027-01-15 08:10:00Z  bob  a lock"), "{closed}");
        assert_eq!(opened(&line(false, vec![])), "shop was open to new rollouts");
        let again = opened(&line(false, vec![stop("r7", Some("x")), stop("r3", Some("x"))]));
        assert_eq!(again, "shop is open to new rollouts again; r7, r3 had closed it");
    }
}
