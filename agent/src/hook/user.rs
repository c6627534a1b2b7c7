//! The user that a hook runs as, from the host's own files: what they say is there whatever service of names is down.

use std::io;

use rustix::process::{Gid, Uid};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A user of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// The main group and every other one.
    pub(super) groups: Vec<Gid>,
    pub(crate) home: String,
}

/// Finds a user that the agent may become; the error says what to do.
pub(crate) fn find(name: &str) -> Result<User, String> {
    let read = |path| fs_err::read_to_string(path).map_err(|error: io::Error| error.to_string());
    let user = parse(name, &read(PASSWD)?, &read(GROUP)?)
        .ok_or_else(|| format!("is to run as user {name}, who is not in {PASSWD}; create that user"))?;
    if !rustix::process::geteuid().is_root() && rustix::process::geteuid() != user.uid {
        return Err(format!("is to run as user {name}, which only an agent that runs as root can do"));
    }
    Ok(user)
}

fn parse(name: &str, passwd: &str, group: &str) -> Option<User> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let entry = passwd.lines().map(fields).find(|fields| fields.first().is_some_and(|n| n == name))?;
    let [_, _, uid, gid, _, home, ..] = entry.as_slice() else { return None };
    let (uid, gid) = (number(uid)?, number(gid)?);
    let mut groups = vec![Gid::from_raw(gid)];
    for group in group.lines().map(fields) {
        let [_, _, number_, members, ..] = group.as_slice() else { continue };
        if members.split(',').any(|member| member == name)
            && let Some(number) = number(number_).filter(|number| *number != gid)
        {
            groups.push(Gid::from_raw(number));
        }
    }
    Some(User {
        name: name.to_owned(),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups,
        home: home.clone(),
    })
}

/// Reads an id; the highest stands for "none" in the kernel.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_their_groups() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:w:/var/www:/bin/false\nodd:x:4294967295:1:::\n";
        let group = "root:x:0:\nwww:x:34:www\nmedia:x:50:other,www\nlogs:x:60:wwwx\nbad\n";
        let user = parse("www", passwd, group).unwrap();
        assert_eq!(
            (user.uid, user.gid, user.home.as_str()),
            (Uid::from_raw(33), Gid::from_raw(34), "/var/www")
        );
        assert_eq!(user.groups, [34, 50].map(Gid::from_raw));
        assert_eq!(parse("odd", passwd, group), None);
        assert_eq!(parse("nobody", passwd, group), None);
        assert!(find("no such user").unwrap_err().contains("create that user"));
    }
}
