//! Whom the process runs as: `user` in the settings makes a broker that was started as root an ordinary user, once it has
//! opened what only root may open.
//!
//! The kernel has users and groups per thread, and new threads inherit them. So the change is made while the process has
//! one thread, before the broker starts any; nothing else would reach all of them without code that is not ours.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Gid, Uid};
use rustix::thread;

use super::config::{Config, Problem};

/// A user with the groups it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// The account that the settings name, if they name one.
///
/// # Errors
/// There is no such user.
///
/// # Blocking
/// Reads `/etc/passwd` and `/etc/group`.
pub(super) fn account(config: &Config) -> Result<Option<Account>, Problem> {
    let Some(name) = &config.user else {
        return Ok(None);
    };
    let read = |path: &str| {
        fs::read_to_string(Path::new(path))
            .map_err(|error| Problem::new("user", format!("cannot read {path}: {error}")))
    };
    let account = find(name, &read("/etc/passwd")?, &read("/etc/group")?);
    let unknown = || {
        Problem::new(
            "user",
            format!("there is no user '{}'", name.escape_debug()),
        )
    };
    account.ok_or_else(unknown).map(Some)
}

/// Looks for `name` in the texts of `/etc/passwd` and `/etc/group`.
fn find(name: &str, users: &str, groups: &str) -> Option<Account> {
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let of_member = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let gid: u32 = fields.next()?.parse().ok()?;
        let is_member = fields.next()?.split(',').any(|member| member == name);
        is_member.then(|| Gid::from_raw(gid))
    };
    let gid = Gid::from_raw(gid);
    let mut of_user: Vec<Gid> = groups.lines().filter_map(of_member).collect();
    if !of_user.contains(&gid) {
        of_user.push(gid);
    }
    Some(Account {
        uid: Uid::from_raw(uid),
        gid,
        groups: of_user,
    })
}

/// Becomes the user, for good, and may never become more than that (`no_new_privs`). Nothing happens if the process is that user already.
///
/// # Errors
/// The process has other threads, which would stay what they are; or it was not started as root.
pub(super) fn become_user(account: &Account) -> Result<(), Problem> {
    if rustix::process::geteuid() == account.uid && rustix::process::getuid() == account.uid {
        return Ok(());
    }
    let failed = |error: io::Error| {
        Problem::new(
            "user",
            format!("cannot become this user: {error}; only root can"),
        )
    };
    if fs::read_dir("/proc/self/task").map_err(failed)?.count() > 1 {
        return Err(Problem::new(
            "user",
            "the process has other threads, which would not change with it: start it as this user",
        ));
    }
    let Account { uid, gid, groups } = account;
    thread::set_thread_groups(groups)
        .and_then(|()| thread::set_thread_res_gid(*gid, *gid, *gid))
        .and_then(|()| thread::set_thread_res_uid(*uid, *uid, *uid))
        .and_then(|()| thread::set_no_new_privs(true))
        .map_err(|error| failed(error.into()))?;
    log::info!("running as user {}", uid.as_raw());
    Ok(())
}

/// Says that the process is root without need.
pub(super) fn warn_about_root() {
    if rustix::process::geteuid().is_root() {
        log::warn!(
            "running as root: set 'user', or start the broker as an ordinary user, so that a fault in it is not root's"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nmqtt:x:990:991::/nonexistent:/usr/sbin/nologin\nmqtt2:x:5:6::/:\n";
    const GROUPS: &str = "root:x:0:\nssl-cert:x:120:www,mqtt\nmqtt:x:991:\nother:x:7:mqtt2\n";

    #[test]
    fn a_user_has_its_own_group_and_those_that_list_it() {
        let found = find("mqtt", USERS, GROUPS).unwrap();
        assert_eq!(found.uid.as_raw(), 990);
        assert_eq!(found.gid.as_raw(), 991);
        let groups: Vec<u32> = found.groups.iter().map(|gid| gid.as_raw()).collect();
        assert_eq!(groups, [120, 991]);
        for unknown in ["mqt", "", "x", "990"] {
            assert_eq!(find(unknown, USERS, GROUPS), None);
        }
    }

    #[test]
    fn the_settings_may_name_only_a_user_that_exists() {
        let mut config = Config::default();
        assert_eq!(
            account(&config).map_err(|problem| problem.to_string()),
            Ok(None)
        );
        config.user = Some("nobody of this name".to_owned());
        assert!(
            account(&config)
                .unwrap_err()
                .to_string()
                .contains("nobody of this name")
        );
    }

    #[test]
    fn a_process_with_several_threads_stays_who_it_is() {
        let mut account = find("mqtt", USERS, GROUPS).unwrap();
        account.uid = Uid::from_raw(54_321);
        // The test harness has threads.
        let problem = become_user(&account).unwrap_err();
        assert!(problem.to_string().contains("threads"), "{problem}");
    }
}
