//! How many websockets may be open at a time, in all and for each user: a page that opens one after the other, or many
//! pages, hold up nobody else.

use meeboter_actors::ids::UserId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the open websockets.
pub struct Watchers {
    max: usize,
    per_user_max: usize,
    /// Of each user who has any.
    open: Mutex<HashMap<UserId, usize>>,
}

/// The place of one websocket; dropped, it is free again.
pub struct Place {
    watchers: Arc<Watchers>,
    user: UserId,
}

impl Watchers {
    /// Lets in so many websockets in all, and so many of one user.
    pub fn new(max: usize, per_user_max: usize) -> Self {
        Self { max, per_user_max, open: Mutex::default() }
    }

    /// A place for one more of this user's, if there is one.
    pub fn admit(self: &Arc<Self>, user: UserId) -> Option<Place> {
        let mut open = self.open();
        let of_user = open.get(&user).copied().unwrap_or_default();
        if of_user >= self.per_user_max || open.values().sum::<usize>() >= self.max {
            return None;
        }
        open.insert(user, of_user + 1);
        Some(Place { watchers: Arc::clone(self), user })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.watchers.open();
        match open.get_mut(&self.user) {
            Some(of_user) if *of_user > 1 => *of_user -= 1,
            _ => drop(open.remove(&self.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_for_each_user_and_come_back() {
        let watchers = Arc::new(Watchers::new(3, 2));
        let admit = |user| watchers.admit(UserId(user));
        let (first, second) = (admit(1), admit(1));
        assert!(first.is_some() && second.is_some());
        assert!(admit(1).is_none(), "two for one user");
        let third = admit(2);
        assert!(third.is_some());
        assert!(admit(3).is_none(), "three in all");
        drop(first);
        let fourth = admit(3);
        assert!(fourth.is_some() && admit(1).is_none());
        drop((second, third, fourth));
        assert!(watchers.open().is_empty(), "nobody is remembered who watches nothing");
    }
}
