//! `[[health]]`: the checks of an application.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::SpecError;
use super::rules::{check_command, check_duration, check_unit};
use crate::units::{duration_text, parse_size};

/// One health check.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "toml::Table")]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Time between two attempts.
    pub interval: Duration,
    /// Time limit of one attempt.
    pub timeout: Duration,
    /// How many attempts in a row must succeed.
    pub successes: u32,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// A GET over plain HTTP/1.1.
    Http(HttpProbe),
    /// A TCP connection that must be accepted.
    Tcp(TcpProbe),
    /// A command that must exit with 0; run as a hook is.
    Command(CommandProbe),
    /// A unit of systemd that must be active.
    Systemd(SystemdProbe),
    /// What the host must have left.
    Resources(ResourcesProbe),
}

/// What an HTTP server must answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// `http://HOST:PORT/PATH`; `${NAME}` is replaced from the environment.
    pub url: String,
    /// The status that must be answered.
    #[serde(default = "status_ok")]
    pub status: u16,
    /// Text that the body must hold; `${VERSION}` asks for the version that was deployed.
    pub contains: Option<String>,
    /// A header that must be there.
    pub header: Option<HeaderProbe>,
    /// What the whole answer must be faster than, from before the connection is opened.
    #[serde(default, with = "duration_text::option")]
    pub latency: Option<Duration>,
}

/// What a header of an answer must hold.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderProbe {
    /// Its name, in whatever case.
    pub name: String,
    /// Text that its value must hold; `${NAME}` is replaced from the environment.
    pub contains: String,
}

/// Where a connection must be accepted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpProbe {
    /// `HOST:PORT`; `${NAME}` is replaced from the environment.
    pub address: String,
}

/// What must exit with 0.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandProbe {
    /// Program and arguments, as those of a hook.
    pub command: Vec<String>,
}

/// What must be active.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemdProbe {
    /// The unit; `${NAME}` is replaced from the environment.
    pub unit: String,
}

/// What the host must have left. Each bound is optional; one must be there.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourcesProbe {
    /// Least memory that programs can still get, in bytes.
    #[serde(default, deserialize_with = "size")]
    pub memory_free: Option<u64>,
    /// Most load of one minute for each core.
    pub load_per_core: Option<f64>,
    /// Least free space of the file system at `path`, in bytes.
    #[serde(default, deserialize_with = "size")]
    pub disk_free: Option<u64>,
    /// A path on the file system meant; nothing: that of the release.
    pub path: Option<String>,
}

/// What every check has, whatever it asks.
#[derive(Deserialize)]
struct Timing {
    #[serde(default = "interval", with = "duration_text")]
    interval: Duration,
    #[serde(default = "timeout", with = "duration_text")]
    timeout: Duration,
    #[serde(default = "successes")]
    successes: u32,
}

impl TryFrom<toml::Table> for HealthCheck {
    type Error = String;

    fn try_from(mut table: toml::Table) -> Result<Self, String> {
        let mut timing = toml::Table::new();
        for field in ["interval", "timeout", "successes"] {
            timing.extend(table.remove(field).map(|value| (field.to_owned(), value)));
        }
        let Timing { interval, timeout, successes } = read("", timing)?;
        let r#type = table.remove("type");
        let probe = match r#type.as_ref().and_then(toml::Value::as_str) {
            Some("http") => Probe::Http(read("http", table)?),
            Some("tcp") => Probe::Tcp(read("tcp", table)?),
            Some("command") => Probe::Command(read("command", table)?),
            Some("systemd") => Probe::Systemd(read("systemd", table)?),
            Some("resources") => Probe::Resources(read("resources", table)?),
            Some(other) => return Err(format!("{other:?} is not a type of check; use {TYPES}")),
            None => return Err(format!("a check has no type; write type = one of {TYPES}")),
        };
        Ok(Self { probe, interval, timeout, successes })
    }
}

const TYPES: &str = "\"http\", \"tcp\", \"command\", \"systemd\" or \"resources\"";

fn read<T: DeserializeOwned>(r#type: &str, table: toml::Table) -> Result<T, String> {
    let of = if r#type.is_empty() { "a check".into() } else { format!("a check of type {type}") };
    table
        .try_into()
        .map_err(|error: toml::de::Error| format!("{of}: {}", error.to_string().trim().replace('\n', " ")))
}

impl HealthCheck {
    /// Checks the values of a table that stands at `place`.
    pub(super) fn check(&self, place: &str) -> Result<(), SpecError> {
        let field = |name: &str| format!("{place}.{name}");
        check_duration(&field("interval"), self.interval)?;
        check_duration(&field("timeout"), self.timeout)?;
        if self.successes == 0 {
            return Err(SpecError::field(field("successes"), "must be at least 1"));
        }
        match &self.probe {
            Probe::Http(probe) => probe.check(place, self.timeout),
            Probe::Tcp(TcpProbe { address }) if !address.contains(':') => {
                Err(SpecError::field(field("address"), format!("{address:?} has no port; write HOST:PORT")))
            }
            Probe::Tcp(_) => Ok(()),
            Probe::Command(probe) => check_command(&field("command"), &probe.command),
            Probe::Systemd(probe) => check_unit(&field("unit"), &probe.unit),
            Probe::Resources(probe) => probe.check(place),
        }
    }
}

impl HttpProbe {
    fn check(&self, place: &str, timeout: Duration) -> Result<(), SpecError> {
        let fail = |name: &str, reason: String| Err(SpecError::field(format!("{place}.{name}"), reason));
        if !self.url.starts_with("http://") {
            let reason =
                format!("{:?} must begin with http://; use a command check for anything else", self.url);
            return fail("url", reason);
        }
        if !(100..=599).contains(&self.status) {
            return fail("status", format!("{} is no status of HTTP; write 100 to 599", self.status));
        }
        match (&self.header, self.latency) {
            (Some(header), _) if header.name.is_empty() || !header.name.bytes().all(is_token) => {
                fail("header.name", format!("{:?} is no name of a header", header.name))
            }
            (_, Some(latency)) if latency.is_zero() || latency > timeout => {
                fail("latency", "must be longer than zero and at most the check's timeout".into())
            }
            _ => Ok(()),
        }
    }
}

impl ResourcesProbe {
    fn check(&self, place: &str) -> Result<(), SpecError> {
        let fail = |name: &str, reason: &str| Err(SpecError::field(format!("{place}.{name}"), reason));
        if self.memory_free.is_none() && self.load_per_core.is_none() && self.disk_free.is_none() {
            return Err(SpecError::field(
                place,
                "has no bound; write memory_free, load_per_core or disk_free",
            ));
        }
        if self.load_per_core.is_some_and(|load| !load.is_finite() || load <= 0.0) {
            return fail("load_per_core", "must be more than zero");
        }
        match &self.path {
            Some(_) if self.disk_free.is_none() => fail("path", "goes with disk_free"),
            Some(path) if !path.starts_with('/') && !path.starts_with("${") => {
                fail("path", "is relative; write the whole path")
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Says whether a byte may stand in a header's name (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_size(&text).map(Some).map_err(serde::de::Error::custom)
}

fn status_ok() -> u16 {
    200
}

fn interval() -> Duration {
    Duration::from_secs(1)
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn successes() -> u32 {
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<HealthCheck, String> {
        let check: HealthCheck = toml::from_str(text).map_err(|error| error.to_string())?;
        check.check("health[0]").map_err(|error| error.to_string())?;
        Ok(check)
    }

    #[test]
    fn every_type_is_read() {
        let http = read(
            "type = \"http\"\nurl = \"http://a/\"\nheader = { name = \"X-Version\", contains = \"${VERSION}\" }\n\
             latency = \"200ms\"\nsuccesses = 3",
        );
        let http = http.unwrap();
        let Probe::Http(probe) = http.probe else { panic!("http") };
        assert_eq!((probe.status, probe.latency, http.successes), (200, Some(Duration::from_millis(200)), 3));
        assert_eq!(http.interval, Duration::from_secs(1));
        assert!(matches!(read("type = \"tcp\"\naddress = \"a:1\"").unwrap().probe, Probe::Tcp(_)));
        assert!(matches!(read("type = \"command\"\ncommand = [\"true\"]").unwrap().probe, Probe::Command(_)));
        assert!(matches!(read("type = \"systemd\"\nunit = \"a.service\"").unwrap().probe, Probe::Systemd(_)));
        let resources = read(
            "type = \"resources\"\nmemory_free = \"512MiB\"\nload_per_core = 1.5\ndisk_free = \"1GiB\"\npath = \"/var\"",
        );
        let Probe::Resources(probe) = resources.unwrap().probe else { panic!("resources") };
        assert_eq!((probe.memory_free, probe.disk_free), (Some(512 << 20), Some(1 << 30)));
    }

    #[test]
    fn mistakes_name_field_and_remedy() {
        let http = |rest: &str| format!("type = \"http\"\nurl = \"http://a/\"\n{rest}");
        for (text, expected) in [
            ("type = \"ping\"".to_owned(), "\"ping\" is not a type of check"),
            ("url = \"http://a/\"".to_owned(), "has no type"),
            ("type = \"http\"".to_owned(), "url"),
            ("type = \"http\"\nurl = \"https://x/\"".to_owned(), "health[0].url"),
            (http("address = \"a:1\""), "address"),
            (http("status = 20"), "health[0].status"),
            (http("interval = \"0s\""), "health[0].interval"),
            (http("interval = 5"), "interval"),
            (http("successes = 0"), "health[0].successes"),
            (http("latency = \"6s\""), "health[0].latency"),
            (http("header = { name = \"X Y\", contains = \"1\" }"), "health[0].header.name"),
            (http("header = { name = \"X\" }"), "contains"),
            ("type = \"tcp\"\naddress = \"a\"".to_owned(), "health[0].address"),
            ("type = \"command\"\ncommand = []".to_owned(), "health[0].command"),
            ("type = \"systemd\"\nunit = \"shop\"".to_owned(), "health[0].unit"),
            ("type = \"resources\"".to_owned(), "has no bound"),
            ("type = \"resources\"\nmemory_free = 512".to_owned(), "string"),
            ("type = \"resources\"\nmemory_free = \"512\"".to_owned(), "512MiB"),
            ("type = \"resources\"\nload_per_core = 0.0".to_owned(), "health[0].load_per_core"),
            ("type = \"resources\"\nload_per_core = 1.0\npath = \"/var\"".to_owned(), "goes with disk_free"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
