//! Who is about to have a volume, and which volumes are about to go. A container is in the registry, where removals look
//! for users, only once it is made; and what was looked up may be otherwise a moment later.
//!
//! Both sides say here first what they are about to do, by name: a removal of what a container that is being made wants is
//! refused, and a creation waits for the end of a removal that has begun, after which the volume is made anew. Nobody holds
//! the lock while something is done.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use spec::Id;

#[derive(Default)]
struct State {
    wanted: HashMap<String, Vec<Id>>,
    going: HashSet<String>,
}

/// What is said by everyone.
#[derive(Default)]
pub(crate) struct Claims {
    state: Mutex<State>,
    gone: Condvar,
}

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state once nobody removes the volume any more.
    fn settled(&self, name: &str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while state.going.contains(name) {
            state = self.gone.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// What a container that is being made wants, until this goes: nothing yet.
    pub(crate) fn of(self: &Arc<Self>, container: &Id) -> Wanted {
        Wanted {
            claims: Arc::clone(self),
            container: container.clone(),
            names: Vec::new(),
        }
    }

    /// Keeps others from beginning to use a volume, for as long as the answer lives; or gives its users, of which `users`
    /// knows those that are made.
    pub(crate) fn take(&self, name: &str, users: impl FnOnce() -> Vec<Id>) -> Result<Going<'_>, Vec<Id>> {
        let mut state = self.settled(name);
        let mut users = users();
        users.extend(state.wanted.get(name).into_iter().flatten().cloned());
        if !users.is_empty() {
            return Err(users);
        }
        state.going.insert(name.to_owned());
        Ok(Going {
            claims: self,
            name: name.to_owned(),
        })
    }
}

/// The volumes that a container which is being made is to have.
pub(crate) struct Wanted {
    claims: Arc<Claims>,
    container: Id,
    names: Vec<String>,
}

impl Wanted {
    pub(crate) fn add(&mut self, name: &str) {
        let mut state = self.claims.settled(name);
        let wanted = state.wanted.entry(name.to_owned()).or_default();
        wanted.push(self.container.clone());
        self.names.push(name.to_owned());
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut state = self.claims.state();
        for name in &self.names {
            if let Some(wanted) = state.wanted.get_mut(name) {
                wanted.retain(|id| *id != self.container);
                if wanted.is_empty() {
                    state.wanted.remove(name);
                }
            }
        }
    }
}

/// A volume that is being removed, or gets another name.
pub(crate) struct Going<'a> {
    claims: &'a Claims,
    name: String,
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.claims.state().going.remove(&self.name);
        self.claims.gone.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_does_not_go_and_what_goes_is_waited_for() {
        let claims = Arc::new(Claims::default());
        let (one, other) = (Id::random(), Id::random());
        let mut wanted = claims.of(&one);
        wanted.add("data");
        let mut also = claims.of(&other);
        also.add("data");
        assert_eq!(
            claims.take("data", Vec::new).err(),
            Some(vec![one.clone(), other.clone()])
        );
        drop(wanted);
        assert_eq!(claims.take("data", Vec::new).err(), Some(vec![other.clone()]));
        drop(also);
        assert_eq!(
            claims.take("data", || vec![one.clone()]).err(),
            Some(vec![one.clone()])
        );
        let going = claims.take("data", Vec::new).ok().unwrap();
        let mut wanted = claims.of(&one);
        // Another name has nothing to do with it.
        wanted.add("else");
        let adding = std::thread::spawn(move || {
            wanted.add("data");
            wanted
        });
        assert!(!claims.state().wanted.contains_key("data"));
        drop(going);
        let wanted = adding.join().unwrap();
        assert_eq!(claims.take("data", Vec::new).err(), Some(vec![one]));
        drop(wanted);
        assert!(claims.state().wanted.is_empty() && claims.state().going.is_empty());
    }
}
