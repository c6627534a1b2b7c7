//! `[traffic]`: how requests are kept from the application while it changes, without a script.
//!
//! HAProxy is spoken to at its runtime sockets; nginx gets the line of this host in an include file and is reloaded.

use std::time::Duration;

use serde::Deserialize;

use super::SpecError;
use super::rules::{check_command, check_duration};
use crate::units::duration_text;

/// The balancers in front of an application. Each is optional.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Traffic {
    /// HAProxy.
    pub haproxy: Option<Haproxy>,
    /// nginx on this host.
    pub nginx: Option<Nginx>,
}

/// Servers of HAProxy that stand for this host's application.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Haproxy {
    /// Runtime sockets, level admin: a path, or `HOST:PORT`; one of every balancer.
    pub sockets: Vec<String>,
    /// `BACKEND/SERVER`, each at every socket; `${NAME}` is replaced from the environment.
    pub servers: Vec<String>,
    /// Where the servers are to send requests, `ADDRESS:PORT`; nothing: as HAProxy's own configuration says.
    pub address: Option<String>,
    /// How long requests under way may take to end, and a server to come up.
    #[serde(default = "wait", with = "duration_text")]
    pub wait: Duration,
}

/// A server of an nginx on this host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nginx {
    /// What the `server` line of the include file says: address and parameters; `${NAME}` is replaced from the environment.
    pub server: String,
    /// Checks the configuration.
    #[serde(default = "nginx_test")]
    pub test: Vec<String>,
    /// Makes nginx take it.
    #[serde(default = "nginx_reload")]
    pub reload: Vec<String>,
    /// The file with the number of nginx's main process.
    #[serde(default = "nginx_pid")]
    pub pid: String,
    /// How long requests under way may take to end.
    #[serde(default = "wait", with = "duration_text")]
    pub wait: Duration,
}

/// Longer than nearly every request, and short beside a deployment.
fn wait() -> Duration {
    Duration::from_secs(30)
}

fn nginx_test() -> Vec<String> {
    ["nginx", "-t", "-q"].map(str::to_owned).to_vec()
}

fn nginx_reload() -> Vec<String> {
    ["nginx", "-s", "reload"].map(str::to_owned).to_vec()
}

fn nginx_pid() -> String {
    "/run/nginx.pid".into()
}

impl Traffic {
    /// Says whether there is any balancer.
    pub fn is_empty(&self) -> bool {
        self.haproxy.is_none() && self.nginx.is_none()
    }

    /// Checks the values; the error names the field.
    pub(super) fn check(&self) -> Result<(), SpecError> {
        self.haproxy.as_ref().map_or(Ok(()), Haproxy::check)?;
        self.nginx.as_ref().map_or(Ok(()), Nginx::check)
    }
}

impl Haproxy {
    fn check(&self) -> Result<(), SpecError> {
        check_duration("traffic.haproxy.wait", self.wait)?;
        if self.sockets.is_empty() {
            return fail(
                "traffic.haproxy.sockets",
                "is empty; name at least one stats socket of level admin",
            );
        }
        if let Some(socket) = self.sockets.iter().find(|socket| !is_absolute(socket) && !socket.contains(':'))
        {
            let reason = format!("{socket:?} is neither a path nor HOST:PORT; write the whole path");
            return fail("traffic.haproxy.sockets", &reason);
        }
        if self.servers.is_empty() {
            return fail("traffic.haproxy.servers", "is empty; name at least one BACKEND/SERVER");
        }
        for server in &self.servers {
            let is_pair =
                server.split_once('/').is_some_and(|(backend, name)| is_word(backend) && is_word(name));
            if !is_pair {
                let reason = format!("{server:?} is not BACKEND/SERVER, as in \"web/${{SERVER}}\"");
                return fail("traffic.haproxy.servers", &reason);
            }
        }
        match &self.address {
            Some(address) if !address.contains(':') || !is_word(address) => {
                fail("traffic.haproxy.address", &format!("{address:?} is not ADDRESS:PORT"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Nginx {
    fn check(&self) -> Result<(), SpecError> {
        check_duration("traffic.nginx.wait", self.wait)?;
        check_command("traffic.nginx.test", &self.test)?;
        check_command("traffic.nginx.reload", &self.reload)?;
        if !is_absolute(&self.pid) {
            return fail("traffic.nginx.pid", &format!("{:?} is relative; write the whole path", self.pid));
        }
        let parts = self.server.split(' ');
        if self.server.is_empty() || parts.clone().any(|part| part.contains('/') || !is_word(part)) {
            let reason = format!(
                "{:?} is not ADDRESS:PORT with parameters, as in \"127.0.0.1:${{PORT}} max_fails=0\"",
                self.server
            );
            return fail("traffic.nginx.server", &reason);
        }
        if parts.clone().any(|part| part == "down") {
            return fail(
                "traffic.nginx.server",
                "says down; the agent writes that itself while requests are kept away",
            );
        }
        Ok(())
    }
}

fn fail(field: &str, reason: &str) -> Result<(), SpecError> {
    Err(SpecError::field(field, reason))
}

/// Says whether a path is a whole one, or will be once its variables are known.
fn is_absolute(path: &str) -> bool {
    path.starts_with('/') || path.starts_with("${")
}

/// Says whether a text may stand in a command to HAProxy or a line of nginx's configuration: variables are allowed, and
/// what they bring is checked again by this when it is known.
pub fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-:=[]/${}".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Traffic, String> {
        let traffic: Traffic = toml::from_str(text).map_err(|error| error.to_string())?;
        traffic.check().map_err(|error| error.to_string())?;
        Ok(traffic)
    }

    #[test]
    fn both_balancers_are_read() {
        let traffic = read(
            "[haproxy]\nsockets = [\"/run/haproxy/admin.sock\", \"lb2:9999\"]\nservers = [\"web/${SERVER}\"]\n\
             address = \"127.0.0.1:${PORT}\"\nwait = \"5s\"\n[nginx]\nserver = \"127.0.0.1:${PORT} max_fails=0\"",
        )
        .unwrap();
        let (haproxy, nginx) = (traffic.haproxy.unwrap(), traffic.nginx.unwrap());
        assert_eq!((haproxy.sockets.len(), haproxy.wait), (2, Duration::from_secs(5)));
        assert_eq!(
            (nginx.reload.join(" ").as_str(), nginx.pid.as_str()),
            ("nginx -s reload", "/run/nginx.pid")
        );
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn mistakes_name_field_and_remedy() {
        let haproxy = |rest: &str| format!("[haproxy]\n{rest}");
        let good = "sockets = [\"/s\"]\nservers = [\"a/b\"]\n";
        for (text, expected) in [
            ("[apache]".to_owned(), "apache"),
            (haproxy("sockets = []\nservers = [\"a/b\"]"), "traffic.haproxy.sockets: is empty"),
            (haproxy("sockets = [\"admin.sock\"]\nservers = [\"a/b\"]"), "write the whole path"),
            (haproxy("sockets = [\"/s\"]\nservers = []"), "traffic.haproxy.servers: is empty"),
            (haproxy("sockets = [\"/s\"]\nservers = [\"web\"]"), "not BACKEND/SERVER"),
            (haproxy("sockets = [\"/s\"]\nservers = [\"web/a;b\"]"), "not BACKEND/SERVER"),
            (haproxy(&format!("{good}address = \"8080\"")), "traffic.haproxy.address"),
            (haproxy(&format!("{good}wait = \"0s\"")), "traffic.haproxy.wait"),
            (haproxy(&format!("{good}socket = \"/s\"")), "socket"),
            ("[nginx]".to_owned(), "server"),
            ("[nginx]\nserver = \"\"".to_owned(), "traffic.nginx.server"),
            ("[nginx]\nserver = \"a:1; include x\"".to_owned(), "traffic.nginx.server"),
            ("[nginx]\nserver = \"a:1 down\"".to_owned(), "writes that itself"),
            ("[nginx]\nserver = \"a:1\"\npid = \"nginx.pid\"".to_owned(), "traffic.nginx.pid"),
            ("[nginx]\nserver = \"a:1\"\ntest = []".to_owned(), "traffic.nginx.test"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
