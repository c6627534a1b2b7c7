//! `[requires]`: what a host must have before a release is brought to it.

use std::cmp::Ordering;
use std::fmt;

use serde::Deserialize;

use super::SpecError;
use crate::units::parse_size;

/// What a host must have. What is not said is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requires {
    /// An operating system, as `ID` and `VERSION_ID` of `/etc/os-release` name it, each with the least version:
    /// one of these.
    #[serde(deserialize_with = "one_or_more")]
    pub os: Vec<AtLeast>,
    /// A processor's architecture: one of these.
    #[serde(deserialize_with = "one_or_more")]
    pub arch: Vec<AtLeast>,
    /// The C library: `glibc` or `musl`, with the least version.
    pub libc: Option<AtLeast>,
    /// The least version of the kernel.
    pub kernel: Option<Dotted>,
    /// Bytes of memory.
    #[serde(deserialize_with = "size")]
    pub memory: Option<u64>,
    /// Bytes of disk that are to be free when the release comes.
    #[serde(deserialize_with = "size")]
    pub disk: Option<u64>,
}

/// A name, and the least version of what it names: `glibc 2.31`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AtLeast {
    /// The name.
    pub name: String,
    /// The least version.
    pub version: Option<Dotted>,
}

/// A version of numbers: `2.31`. What follows the numbers, as in `6.1.0-13-amd64`, is not looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Dotted(String);

impl Dotted {
    /// Reads the numbers at the beginning of a text; nothing where there are none.
    pub fn read(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let version = Self(text[..end].trim_end_matches('.').to_owned());
        let is_version = version.0.split('.').all(|part| part.parse::<u32>().is_ok());
        is_version.then_some(version)
    }

    fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.split('.').map(|part| part.parse().expect("only numbers are read"))
    }
}

impl TryFrom<String> for Dotted {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text)
            .filter(|read| read.0 == text)
            .ok_or_else(|| format!("{text:?} is no version of numbers; write it as in \"5.10\""))
    }
}

impl PartialEq for Dotted {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Dotted {}

impl PartialOrd for Dotted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Dotted {
    /// Compares number by number; one that is missing counts as zero.
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut one, mut other) = (self.numbers(), other.numbers());
        loop {
            match (one.next(), other.next()) {
                (None, None) => return Ordering::Equal,
                (one, other) => match one.unwrap_or(0).cmp(&other.unwrap_or(0)) {
                    Ordering::Equal => {}
                    unequal => return unequal,
                },
            }
        }
    }
}

impl fmt::Display for Dotted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AtLeast {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (name, version) = match text.split_once(' ') {
            Some((name, version)) => (name, Some(Dotted::try_from(version.trim().to_owned())?)),
            None => (text.as_str(), None),
        };
        let is_name =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        match is_name {
            true => Ok(Self { name: name.to_owned(), version }),
            false => Err(format!("{text:?} is no name with a version; write it as in \"debian 12\"")),
        }
    }
}

impl fmt::Display for AtLeast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{} {version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Requires {
    /// Checks the values; the error names the field.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        if let Some(arch) = self.arch.iter().find(|arch| arch.version.is_some()) {
            let reason = format!("{arch} has a version; write the architecture alone, as in \"x86_64\"");
            return Err(SpecError::field("requires.arch", reason));
        }
        match &self.libc {
            Some(libc) if !["glibc", "musl"].contains(&libc.name.as_str()) => {
                let reason = format!("{} is not known; write \"glibc 2.31\" or \"musl\"", libc.name);
                Err(SpecError::field("requires.libc", reason))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Reads one text or a list of them.
fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<AtLeast>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "write a text or a list of texts, as in \"debian 12\"")]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    let texts = match OneOrMore::deserialize(deserializer)? {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    };
    texts.into_iter().map(|text| AtLeast::try_from(text).map_err(serde::de::Error::custom)).collect()
}

fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use crate::spec::Spec;

    use super::*;

    #[test]
    fn requirements_are_read() {
        let spec = Spec::parse(
            "[requires]\nos = [\"debian 12\", \"ubuntu\"]\narch = \"x86_64\"\nlibc = \"glibc 2.31\"\nkernel = \"5.10\"\nmemory = \"2GB\"\ndisk = \"1.5GB\"",
        );
        let requires = spec.unwrap().requires;
        assert_eq!(
            (requires.os[0].to_string(), requires.os[1].to_string()),
            ("debian 12".into(), "ubuntu".into())
        );
        assert_eq!(requires.libc.unwrap().to_string(), "glibc 2.31");
        assert_eq!((requires.memory, requires.disk), (Some(2_000_000_000), Some(1_500_000_000)));
        assert_eq!(Spec::parse("").unwrap().requires, Requires::default());
    }

    #[test]
    fn mistakes_are_refused() {
        for (text, expected) in [
            ("os = 1", "list of texts"),
            ("os = \"debian bookworm\"", "as in \"5.10\""),
            ("os = \"a!b\"", "as in \"debian 12\""),
            ("arch = \"x86_64 2\"", "requires.arch"),
            ("libc = \"newlib\"", "requires.libc"),
            ("kernel = \"5.x\"", "as in \"5.10\""),
            ("memory = \"2\"", "512MiB"),
            ("cpu = 2", "cpu"),
        ] {
            let error = Spec::parse(&format!("[requires]\n{text}")).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        let read = |text: &str| Dotted::read(text).unwrap();
        for (less, more) in [("2.9", "2.31"), ("5", "5.1"), ("5.10.2", "6.1.0-13-amd64"), ("1.2.9", "1.10")] {
            assert!(read(less) < read(more), "{less} {more}");
        }
        assert_eq!(read("6.0").cmp(&read("6")), Ordering::Equal);
        assert_eq!(read("6.1.0-13-amd64").to_string(), "6.1.0");
        assert_eq!(read("22.04").to_string(), "22.04");
        for none in ["x", "", ".5", "5..1", "99999999999"] {
            assert_eq!(Dotted::read(none), None, "{none}");
        }
    }
}
