//! `simulate`: many runs of a rollout on paper, with things going wrong.

use std::time::Duration;

use anyhow::Context as _;
use sluice_common::units::{format_duration, format_size};
use sluice_proto::convert::millis;
use sluice_proto::v1;

use super::Context;
use super::args::SimulateArgs;
use super::error::context as advice;
use super::exit::Exit;
use super::output::{count, table};
use super::rollout::spec;
use super::view::forecast::{Quantiles, Simulated, Span};

pub(super) async fn run(context: &Context, args: SimulateArgs) -> anyhow::Result<Exit> {
    let coordinator = context.connect().await?;
    let SimulateArgs {
        what,
        seed,
        runs,
        host_failure,
        host_loss,
        loss,
        slow_host,
        slowness,
        bad_release,
        bad_after,
    } = args;
    let (app, version) = (what.app.to_string(), what.version.to_string());
    let request = v1::SimulateRolloutRequest {
        app: app.clone(),
        version: version.clone(),
        spec: Some(spec(&what)),
        seed,
        runs,
        host_failure,
        host_loss,
        loss_ms: millis(loss),
        slow_host,
        slowness,
        bad_release,
        bad_after_ms: millis(bad_after),
    };
    let failed = || {
        advice(
            format!("cannot simulate a rollout of {app} {version}"),
            format!("sluice release list {app} shows its versions, sluice host list whom it could be for"),
        )
    };
    let answer = coordinator.forecasts().simulate(request).await.with_context(failed)?.into_inner();
    let simulated = Simulated::from(answer);
    context.output.show(&simulated, || text(&app, &version, &simulated))?;
    if simulated.runs < runs {
        context.output.note(format_args!("time for {} of {runs} runs only", simulated.runs));
    }
    Ok(Exit::Success)
}

fn row<T>(name: &str, of: Quantiles<T>, format: impl Fn(T) -> String) -> Vec<String> {
    [name.to_owned()].into_iter().chain([of.p50, of.p90, of.p99, of.max].map(format)).collect()
}

fn text(app: &str, version: &str, simulated: &Simulated) -> String {
    let hosts = |number: u64| number.to_string();
    let time = |time: Span| format_duration(Duration::from_secs(time.0.as_secs_f64().ceil() as u64));
    let mut text = format!(
        "{app} {version} on {}, {} in {} ms\n",
        count(simulated.hosts as usize, "host"),
        count(simulated.runs as usize, "run"),
        simulated.took_seconds.0.as_millis()
    );
    if simulated.unheard > 0 {
        text += &format!(
            "  {} cannot be heard now and taken as heard\n",
            count(simulated.unheard as usize, "host")
        );
    }
    for (end, runs) in &simulated.ends {
        text += &format!("  {runs} {end}\n");
    }
    if simulated.bad_runs > 0 {
        let (bad, unnoticed) = (simulated.bad_runs, simulated.bad_unnoticed);
        text += &format!("  {bad} with a bad release, {unnoticed} of them not stopped\n");
    }
    let mut rows = vec![row("time, succeeded", simulated.succeeded_seconds, time)];
    rows.push(row("time, others", simulated.others_seconds, time));
    rows.push(row("hosts hurt", simulated.hurt, hosts));
    if simulated.bad_runs > 0 {
        rows.push(row("hosts hurt by a bad release", simulated.hurt_by_bad, hosts));
    }
    text +=
        &format!("\n{}", table(&["", "HALF", "90%", "99%", "MOST"], &["HALF", "90%", "99%", "MOST"], rows));
    let sites = simulated.sites.iter().map(|site| vec![site.site.clone(), format_size(site.bytes)]);
    text += &format!("\n{}", table(&["SITE", "BYTES"], &["BYTES"], sites.collect()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::forecast::Site;

    #[test]
    fn a_simulation_as_text() {
        let of = |p50| Quantiles { p50, p90: 2 * p50, p99: 3 * p50, max: 4 * p50 };
        let time = |millis| {
            let Quantiles { p50, p90, p99, max } = of(millis);
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(|millis| Span(Duration::from_millis(millis)));
            Quantiles { p50, p90, p99, max }
        };
        let simulated = Simulated {
            hosts: 20,
            unheard: 1,
            runs: 1_000,
            ends: [("succeeded".to_owned(), 930), ("rolled_back".to_owned(), 70)].into(),
            succeeded_seconds: time(180_000),
            others_seconds: time(60_400),
            hurt: of(0),
            bad_runs: 50,
            bad_unnoticed: 2,
            hurt_by_bad: of(1),
            sites: vec![Site {
                site: "berlin".to_owned(),
                hosts: 20,
                changing: 20,
                limit_bytes_per_second: None,
                bytes: 41_000_000,
                staged_seconds: Span(Duration::from_secs(41)),
            }],
            took_seconds: Span(Duration::from_millis(420)),
        };
        insta::assert_snapshot!(text("shop", "1.2", &simulated), @r"
        shop 1.2 on 20 hosts, 1000 runs in 420 ms
          1 host cannot be heard now and taken as heard
          70 rolled_back
          930 succeeded
          50 with a bad release, 2 of them not stopped

                                     HALF   90%   99%  MOST
        time, succeeded                3m    6m    9m   12m
        time, others                 1m1s  2m1s  3m2s  4m2s
        hosts hurt                      0     0     0     0
        hosts hurt by a bad release     1     2     3     4

        SITE      BYTES
        berlin  41.0 MB
        ");
    }
}
