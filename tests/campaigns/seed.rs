//! Chance that can be repeated.

/// The source of everything random in a campaign.
pub struct Seed {
    campaign: &'static str,
    number: u64,
}

impl Seed {
    /// A new seed, or the one that `INGESTD_SEED` gives; printed either way.
    pub fn of(campaign: &'static str) -> Self {
        let given = std::env::var("INGESTD_SEED").ok().and_then(|seed| seed.parse().ok());
        let number = given.unwrap_or_else(|| fastrand::u64(..));
        eprintln!("{campaign}: again with INGESTD_SEED={number} cargo test --test campaigns -- {campaign}");
        Self { campaign, number }
    }

    /// Chance from this seed.
    pub fn random(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.number)
    }

    /// Prints what the campaign came to, in the words of `docs/RELIABILITY.md`.
    pub fn report(&self, figures: impl std::fmt::Display) {
        eprintln!("{}: {figures} (INGESTD_SEED={})", self.campaign, self.number);
    }
}
