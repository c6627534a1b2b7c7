//! Measures a program as the child of a process that holds nothing.

use std::ffi::OsString;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wait4::Wait4;

use super::{Usage, run};
use crate::role::Role;

/// Runs a command as [`run`] does, here, as the child of a process made for it. Only for programs that take roles.
pub fn alone(command: &Command) -> Result<(Output, Usage)> {
    let told = tempfile::NamedTempFile::new()?;
    let mut parent = Role::Measure.command(&std::env::current_exe()?);
    parent.arg(told.path()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => parent.env(name, value),
            None => parent.env_remove(name),
        };
    }
    let (output, _) = run(parent).with_context(|| format!("cannot measure {:?}", command.get_program()))?;
    let text = fs_err::read_to_string(told.path())?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next().context("a program was not measured")?.context("a measure is no number");
    let (wall, cpu, peak_bytes) = (next()?, next()?, next()?);
    Ok((output, Usage { wall: Duration::from_micros(wall), cpu: Duration::from_micros(cpu), peak_bytes }))
}

/// Runs the program that the arguments name (`measure FILE PROGRAM ARG...`) and writes to the file what it took: wall and CPU time in
/// microseconds, and the peak of its memory in bytes. Ends as the program does.
pub fn report(args: Vec<OsString>) -> ExitCode {
    match reported(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn reported(args: &[OsString]) -> Result<ExitCode> {
    let [_, file, program, args @ ..] = args else { anyhow::bail!("measure FILE PROGRAM ARG...") };
    let begun = Instant::now();
    let ended = Command::new(program).args(args).spawn()?.wait4()?;
    let (wall, usage) = (begun.elapsed().as_micros(), ended.rusage);
    fs_err::write(file, format!("{wall} {} {}", (usage.utime + usage.stime).as_micros(), usage.maxrss))?;
    Ok(if ended.status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
