//! A link that lasts as long as a list takes, whatever happens to the daemon meanwhile.
//!
//! 1. A connection that broke is made anew, to the next daemon or to the database itself, and the request is asked again:
//!    each of them is safe to ask twice.
//! 2. Whoever writes directly keeps a daemon from starting. So the database is let go of every few seconds, for longer
//!    than a daemon that waits for it needs to get it, and whenever there is nothing to write.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::super::context::{Context, Link};
use super::super::failure::Failure;
use crate::control::{Request, Stores};

/// How long somebody who may write is looked for.
const RELINK: Duration = Duration::from_secs(30);
/// How often meanwhile.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long the database is kept; a daemon that starts waits three seconds for it.
const KEEP: Duration = Duration::from_secs(2);
/// How long it is let go of: a daemon looks every 20 ms.
const LET_GO: Duration = Duration::from_millis(100);

/// See the module.
pub struct Steady {
    link: Option<Link>,
    stores: Option<Stores>,
    linked_at: Instant,
    /// Whether there was a link before.
    before: bool,
    /// When a daemon was linked or seen last.
    daemon_at: Option<Instant>,
}

impl Steady {
    /// Not linked yet.
    pub fn new() -> Self {
        Self { link: None, stores: None, linked_at: Instant::now(), before: false, daemon_at: None }
    }

    /// Asks, as often as it takes, and reads the answer.
    pub async fn ask<T: DeserializeOwned>(&mut self, request: &Request, context: &Context) -> Result<T, Failure> {
        let deadline = Instant::now() + RELINK;
        loop {
            self.let_others_in(context).await;
            let before = self.before;
            let link = match self.link(context).await {
                Ok(link) => link,
                Err(_) if before && Instant::now() < deadline => {
                    sleep(ASK_AGAIN).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            match link.ask(request.clone()).await {
                Err(_) if link.is_lost() && Instant::now() < deadline => self.rest(context).await,
                answer => return answer,
            }
        }
    }

    /// What is read without asking anybody.
    pub async fn stores(&mut self, context: &Context) -> Result<Stores, Failure> {
        if let Some(stores) = &self.stores {
            return Ok(stores.clone());
        }
        let stores = context.read().await?;
        self.stores = Some(stores.clone());
        Ok(stores)
    }

    /// Whether the database is ours for the moment, and no daemon runs.
    pub const fn is_direct(&self) -> bool {
        matches!(self.link, Some(Link::Direct(_)))
    }

    /// Whether there may be a daemon: one runs, or one was there a short time ago and may be on its way back.
    pub async fn expects_daemon(&mut self, context: &Context) -> bool {
        // One that starts or stops may refuse to be spoken to.
        if !matches!(context.daemon().await, Ok(None)) {
            self.daemon_at = Some(Instant::now());
        }
        self.daemon_at.is_some_and(|at| at.elapsed() < RELINK)
    }

    /// Lets go of everything until it is needed again.
    pub async fn rest(&mut self, context: &Context) {
        self.link = None;
        self.stores = None;
        context.close().await;
    }

    /// Links now, so that what is wrong with it is said before anything is read.
    pub async fn link(&mut self, context: &Context) -> Result<&mut Link, Failure> {
        let link = match self.link.take() {
            Some(link) => link,
            None => {
                let link = context.link().await?;
                self.linked_at = Instant::now();
                self.before = true;
                if matches!(link, Link::Daemon(_)) {
                    self.daemon_at = Some(self.linked_at);
                }
                link
            }
        };
        Ok(self.link.insert(link))
    }

    async fn let_others_in(&mut self, context: &Context) {
        if self.is_direct() && self.linked_at.elapsed() >= KEEP {
            self.rest(context).await;
            sleep(LET_GO).await;
        }
    }
}
