//! The commands of a chapter of the documentation, so that what people are told to do is what is done here.

use anyhow::{Result, ensure};

/// The chapter on a host with systemd.
pub const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Returns the commands of the first block under the heading `title`, with `values` in place of their names.
pub fn commands(text: &str, title: &str, values: &[(&str, &str)]) -> Result<Vec<String>> {
    let chapter = text.split_once(&format!("# {title}\n")).map(|(_, rest)| rest).unwrap_or_default();
    let lines = chapter.lines().skip_while(|line| !line.starts_with("    "));
    let commands: Vec<String> = lines
        .map_while(|line| line.strip_prefix("    "))
        .map(|line| values.iter().fold(line.to_owned(), |line, (name, value)| line.replace(name, value)))
        .collect();
    ensure!(!commands.is_empty(), "the documentation has no commands under {title:?}");
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_under_its_heading() {
        let text = "# A\n\n    no\n\n## B\nwords\n\n    one PLACE\n    two\n\nmore\n\n    three\n";
        assert_eq!(commands(text, "B", &[("PLACE", "here")]).unwrap(), ["one here", "two"]);
        assert!(commands(text, "C", &[]).is_err());
    }
}
