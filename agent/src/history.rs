//! `history.log`: one line a move of `current`, for people and for `grep`.

use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use sluice_common::name::RolloutId;
use sluice_common::order::{Generation, Installed};

/// One move of `current`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// What it pointed at.
    pub(crate) from: Option<&'a Installed>,
    /// What it points at now.
    pub(crate) to: Option<&'a Installed>,
    /// Who asked.
    pub(crate) rollout: &'a RolloutId,
    /// By which order.
    pub(crate) generation: Generation,
    /// Why.
    pub(crate) why: &'a str,
}

/// Appends a line, durably. A line that stands at the end already, from before a crash, is not repeated.
pub(crate) fn append(path: &Path, line: &Line<'_>) -> io::Result<()> {
    let name = |installed: Option<&Installed>| {
        installed.map_or_else(|| "none".to_owned(), |i| format!("{}@{}", i.version, i.package.short()))
    };
    let why: String = line.why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    let text = format!(
        "from={} to={} rollout={} generation={} why={why}\n",
        name(line.from),
        name(line.to),
        line.rollout,
        line.generation
    );
    let written = match fs_err::read_to_string(path) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if written
        .lines()
        .last()
        .and_then(|last| last.split_once(' '))
        .is_some_and(|(_, rest)| rest == text.trim_end())
    {
        return Ok(());
    }
    let mut file = fs_err::OpenOptions::new().append(true).create(true).open(path)?;
    // A crash may have cut the last line short.
    let separator = if written.is_empty() || written.ends_with('\n') { "" } else { "\n" };
    file.write_all(format!("{separator}{:.0} {text}", Timestamp::now()).as_bytes())?;
    file.sync_all()
}

/// Returns when `current` was last moved; nothing where nothing is known.
pub(crate) fn last_move(path: &Path) -> Option<Timestamp> {
    let written = fs_err::read_to_string(path).ok()?;
    let whole = written.split_inclusive('\n').rfind(|line| line.ends_with('\n'))?;
    whole.split(' ').next()?.parse().ok()
}

/// Returns the directory's name of the release that `current` last moved to; nothing where that was none, or nothing is known.
pub(crate) fn last_current(path: &Path) -> io::Result<Option<String>> {
    let written = match fs_err::read_to_string(path) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // A crash may have cut the last line short.
    let whole = written.split_inclusive('\n').rfind(|line| line.ends_with('\n'));
    let to = whole.and_then(|line| line.split(' ').find_map(|word| word.strip_prefix("to=")));
    Ok(to.and_then(|to| to.rsplit_once('@')).map(|(_, short)| short.to_owned()))
}

#[cfg(test)]
mod tests {
    use sluice_common::digest::Digest;

    use super::*;

    #[test]
    fn a_line_is_written_once_however_often_the_step_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.log");
        let one = Installed { package: Digest::of(b"1"), version: "1".parse().unwrap() };
        let rollout = "r1".parse().unwrap();
        let line = |generation, why| Line {
            from: None,
            to: Some(&one),
            rollout: &rollout,
            generation: Generation(generation),
            why,
        };
        append(&path, &line(1, "ordered")).unwrap();
        append(&path, &line(1, "ordered")).unwrap();
        append(&path, &line(2, "not healthy:\nanswered 500")).unwrap();
        let text = fs_err::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        let to = format!("from=none to=1@{} rollout=r1", one.package.short());
        assert_eq!(
            lines,
            [
                format!("{to} generation=1 why=ordered"),
                format!("{to} generation=2 why=not healthy: answered 500")
            ]
        );
        assert!(text.starts_with("20") && text.as_bytes()[19] == b'Z', "{text}");
    }
}
