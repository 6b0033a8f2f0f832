//! Logins that clients brought, for what is fetched when no client is there to be asked: layers that were let go.
//!
//! They are kept in memory alone, for as long as the process lives, and given to nobody but the registry they were for. Who
//! wants one to outlive the process names a file in a rule (`auth-file`), which counts where none is known here.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use registry::Auth;
use spec::Reference;

/// The longest unused goes when there are more.
const MOST: usize = 256;

#[derive(Default)]
pub(crate) struct Logins {
    /// The one that worked last is the last.
    known: Mutex<VecDeque<Login>>,
}

struct Login {
    domain: String,
    path: String,
    auth: Auth,
}

impl Logins {
    /// A pull or push with this login succeeded.
    pub fn worked(&self, name: &Reference, auth: &Auth) {
        if *auth == Auth::Anonymous {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|login| (login.domain.as_str(), login.path.as_str()) != (name.domain(), name.path()));
        while known.len() >= MOST {
            known.pop_front();
        }
        known.push_back(Login {
            domain: name.domain().to_owned(),
            path: name.path().to_owned(),
            auth: auth.clone(),
        });
    }

    /// The login for a repository; failing that, the last one that another repository of the same registry took.
    pub fn of(&self, name: &Reference) -> Auth {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let there = || known.iter().rev().filter(|login| login.domain == name.domain());
        let own = there().find(|login| login.path == name.path());
        own.or_else(|| there().next())
            .map_or(Auth::Anonymous, |login| login.auth.clone())
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logins(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn user(user: &str) -> Auth {
        Auth::Basic {
            user: user.to_owned(),
            password: "p".to_owned(),
        }
    }

    #[test]
    fn a_login_is_for_its_repository_then_for_its_registry_and_for_no_other() {
        let logins = Logins::default();
        assert_eq!(logins.of(&name("a.example/x")), Auth::Anonymous);
        logins.worked(&name("a.example/x:1"), &user("x"));
        logins.worked(&name("a.example/y:1"), &user("y"));
        logins.worked(&name("a.example/y:1"), &Auth::Anonymous);
        assert_eq!(
            logins.of(&name(
                "a.example/x@sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
            )),
            user("x")
        );
        assert_eq!(logins.of(&name("a.example/z")), user("y"));
        assert_eq!(logins.of(&name("b.example/x")), Auth::Anonymous);
        logins.worked(&name("a.example/x:2"), &user("new"));
        assert_eq!(logins.of(&name("a.example/x")), user("new"));
        for number in 0..2 * MOST {
            logins.worked(&name(&format!("c.example/r{number}")), &user("c"));
        }
        assert_eq!(logins.of(&name("a.example/x")), Auth::Anonymous);
        assert_eq!(logins.known.lock().unwrap().len(), MOST);
    }
}
