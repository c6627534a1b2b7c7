//! `env`: the fleet as one file.
//!
//! | module | owns |
//! |---|---|
//! | `render` | plan, status, differences and layout as tables, for people |
//! | `document` | the same as Markdown |
//! | `diagram` | the same as Mermaid |
//! | `forecast` | what all of them say of bytes, disks and times |
//! | `follow` | waiting for a run |

mod diagram;
mod document;
mod follow;
mod forecast;
mod render;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use sluice_common::name::EnvironmentName;
use sluice_proto::v1;

use super::Context;
use super::args::{EnvApplyArgs, EnvCommand, Format, NameArgs};
use super::connect::Coordinator;
use super::error::{self, advise, context as advice};
use super::exit::Exit;
use super::output::{Closed, Output};
use super::pages;
use super::view::environment::forecast::Forecast;
use super::view::environment::{Diff, Difference, Environment, Layout, LayoutApp, Plan};
use crate::environment::{Environment as File, ParseError};

#[derive(Serialize)]
struct Environments {
    environments: Vec<Environment>,
}

pub(super) async fn run(context: &Context, command: EnvCommand) -> anyhow::Result<Exit> {
    match command {
        EnvCommand::Plan { file, format } => or_255(context, plan(context, &file, format.format).await),
        EnvCommand::Diff { name, format } => or_255(context, diff(context, name, format.format).await),
        EnvCommand::Apply(args) => apply(context, args).await,
        EnvCommand::List => list(context).await,
        EnvCommand::Show { name } => show(context, name).await,
        EnvCommand::Layout { name, format } => layout(context, name, format.format).await,
        EnvCommand::Export { name, observed } => export(context, name, observed).await,
        EnvCommand::Stop { name, roll_back, reason } => stop(context, name, roll_back, reason).await,
    }
}

/// Ends a question of which 1 is an answer: its errors are 255.
fn or_255(context: &Context, asked: anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    match asked {
        Err(error) if !error.is::<Closed>() => {
            context.output.note(error::render(&error));
            Ok(Exit::Unanswered)
        }
        answered => answered,
    }
}

/// Reads a file, and checks it before anybody is asked: a mistake is told with its place in the file.
fn read(path: &Path) -> anyhow::Result<String> {
    let text = fs_err::read_to_string(path)?;
    match File::parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(wrong(path, &error)),
    }
}

fn wrong(path: &Path, error: &ParseError) -> anyhow::Error {
    advise(format_args!("{}: {error}", path.display()), "docs/fleet-toml.md says what may stand there")
}

async fn planned(coordinator: &Coordinator, file: &str) -> anyhow::Result<Plan> {
    let request = v1::PlanEnvironmentRequest { file: file.to_owned() };
    let answer = coordinator.environments().plan(request).await.context("cannot plan the environment")?;
    let plan: Plan = answer.into_inner().plan.context("the coordinator answered without a plan")?.into();
    let forecast = if plan.changes { forecast(coordinator, file).await? } else { None };
    Ok(Plan { forecast, ..plan })
}

/// Asks what links, disks and clocks say; nothing where the operator may only look: transfer plans are made for it.
async fn forecast(coordinator: &Coordinator, file: &str) -> anyhow::Result<Option<Forecast>> {
    let request = v1::ForecastEnvironmentRequest { file: file.to_owned() };
    match coordinator.environments().forecast(request).await {
        Ok(answer) => Ok(answer.into_inner().forecast.map(Forecast::from)),
        Err(status) if status.code() == tonic::Code::PermissionDenied => Ok(None),
        Err(status) => Err(status).context("cannot foresee what the environment would come to"),
    }
}

async fn plan(context: &Context, file: &Path, format: Format) -> anyhow::Result<Exit> {
    let text = read(file)?;
    let plan = planned(&context.connect().await?, &text).await?;
    let output = context.output;
    print(output, format, &plan, || render::plan(&plan), || document::plan(&plan), || diagram::plan(&plan))?;
    Ok(match (plan.problems.is_empty(), plan.changes) {
        (false, _) => Exit::Unanswered,
        (true, true) => Exit::Changes,
        (true, false) => Exit::Success,
    })
}

/// Prints a value in one of its forms.
fn print(
    output: Output,
    format: Format,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
    markdown: impl FnOnce() -> String,
    mermaid: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match format {
        _ if output.is_json() => output.json(value),
        Format::Json => output.json(value),
        Format::Text => output.raw(&text()),
        Format::Markdown => output.raw(&markdown()),
        Format::Mermaid => output.raw(&mermaid()),
    }
}

async fn apply(context: &Context, args: EnvApplyArgs) -> anyhow::Result<Exit> {
    let EnvApplyArgs { file, yes, wait, timeout } = args;
    let text = read(&file)?;
    let coordinator = context.connect().await?;
    let plan = planned(&coordinator, &text).await?;
    context.output.note(render::plan(&plan).trim_end());
    if !plan.problems.is_empty() {
        return Err(advise(format_args!("{} cannot be applied", file.display()), plan.problems.join("\n")));
    }
    if !yes && !confirmed(&plan)? {
        context.output.note("nothing was changed");
        return Ok(Exit::Error);
    }
    let request = v1::ApplyEnvironmentRequest { file: text };
    let failed = || advice(format!("cannot apply {}", file.display()), "see: sluice env plan");
    let answer = coordinator.environments().apply(request).await.with_context(failed)?.into_inner();
    let environment = received(answer.environment)?;
    if wait {
        return follow::follow(context, &coordinator, environment, timeout).await;
    }
    context.output.show(&environment, || render::environment(&environment))?;
    context.output.note(format_args!("see how far it is with sluice env show {}", environment.name));
    Ok(Exit::Success)
}

/// Asks whether to go on.
fn confirmed(plan: &Plan) -> anyhow::Result<bool> {
    if !plan.changes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(advise("nobody is there to be asked", "apply with --yes"));
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "apply it? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn received(environment: Option<v1::Environment>) -> anyhow::Result<Environment> {
    Ok(environment.context("the coordinator answered without an environment")?.into())
}

async fn environments(coordinator: &Coordinator) -> anyhow::Result<Vec<Environment>> {
    let answer = coordinator.environments().list(v1::ListEnvironmentsRequest {}).await?.into_inner();
    Ok(answer.environments.into_iter().map(Environment::from).collect())
}

async fn list(context: &Context) -> anyhow::Result<Exit> {
    let environments = Environments { environments: environments(&context.connect().await?).await? };
    context.output.show(&environments, || render::environments(&environments.environments))?;
    Ok(Exit::Success)
}

/// Returns the name that was said, or that of the only environment there is.
async fn named(coordinator: &Coordinator, name: NameArgs) -> anyhow::Result<String> {
    if let Some(name) = name.name {
        return Ok(name.to_string());
    }
    let mut all = environments(coordinator).await?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only.name),
        (Some(_), false) => Err(advise("there are several environments", "name one; see: sluice env list")),
        (None, _) => Err(advise(
            "there is no environment yet",
            "write a fleet.toml and run: sluice env apply fleet.toml",
        )),
    }
}

async fn show(context: &Context, name: NameArgs) -> anyhow::Result<Exit> {
    let coordinator = context.connect().await?;
    let name = named(&coordinator, name).await?;
    let answer = coordinator.environments().get(v1::GetEnvironmentRequest { name }).await?.into_inner();
    let environment = received(answer.environment)?;
    context.output.show(&environment, || render::environment(&environment))?;
    Ok(Exit::Success)
}

async fn diff(context: &Context, name: NameArgs, format: Format) -> anyhow::Result<Exit> {
    let coordinator = context.connect().await?;
    let environment = named(&coordinator, name).await?;
    let (differences, looked_at) = pages::differences(&coordinator, &environment).await?;
    let differences: Vec<Difference> = differences.into_iter().map(Difference::from).collect();
    let diff = Diff { environment, looked_at, differences };
    let output = context.output;
    print(output, format, &diff, || render::diff(&diff), || document::diff(&diff), || diagram::diff(&diff))?;
    Ok(if diff.differences.is_empty() { Exit::Success } else { Exit::Changes })
}

async fn layout(context: &Context, name: NameArgs, format: Format) -> anyhow::Result<Exit> {
    let coordinator = context.connect().await?;
    let environment = named(&coordinator, name).await?;
    let apps = pages::layout(&coordinator, &environment).await?;
    let layout = Layout { environment, apps: apps.into_iter().map(LayoutApp::from).collect() };
    let (output, view) = (context.output, &layout);
    print(
        output,
        format,
        view,
        || render::layout(view),
        || document::layout(view),
        || diagram::layout(view),
    )?;
    Ok(Exit::Success)
}

async fn export(context: &Context, name: NameArgs, observed: bool) -> anyhow::Result<Exit> {
    let coordinator = context.connect().await?;
    let name = if observed { String::new() } else { named(&coordinator, name).await? };
    let answer = coordinator.environments().export(v1::ExportEnvironmentRequest { name }).await?.into_inner();
    context.output.raw(&answer.file)?;
    Ok(Exit::Success)
}

async fn stop(
    context: &Context,
    name: EnvironmentName,
    roll_back: bool,
    reason: String,
) -> anyhow::Result<Exit> {
    let request = v1::StopEnvironmentRequest { name: name.to_string(), reason, roll_back };
    let answer = context.connect().await?.environments().stop(request).await?.into_inner();
    let environment = received(answer.environment)?;
    context.output.show(&environment, || render::environment(&environment))?;
    Ok(Exit::Success)
}
