//! Models and their targets, compiled from the configuration.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::config::Config;
use crate::domain::price::Rates;
use crate::upstream::{Endpoint, EndpointError};

/// All models of this node.
#[derive(Debug, Default)]
pub struct Routing {
    exact: HashMap<Arc<str>, Arc<Model>>,
    /// `prefix*` and `*`, longest prefix first.
    patterns: Vec<(Box<str>, Arc<Model>)>,
    /// Names without a pattern, in the order of the configuration.
    names: Vec<Arc<str>>,
}

/// A public model name and where it leads.
#[derive(Debug)]
pub struct Model {
    /// As configured; a pattern keeps its `*`, so that metrics have a closed set of names.
    pub name: Arc<str>,
    pub targets: Vec<Arc<Target>>,
    /// The model's own price; otherwise the price table's for the upstream model.
    pub rates: Option<Rates>,
    total_weight: u32,
}

/// One provider and upstream model.
#[derive(Debug)]
pub struct Target {
    pub endpoint: Arc<Endpoint>,
    /// `None`: the requested name.
    pub model: Option<Arc<str>>,
    /// `provider/upstream model`, where the model is known.
    label: Option<Arc<str>>,
    weight: u32,
}

impl Target {
    /// Returns `provider/upstream model`, the name of this target in records.
    pub fn label(&self, upstream_model: &str) -> Arc<str> {
        let made = || format!("{}/{upstream_model}", self.endpoint.name).into();
        self.label.clone().unwrap_or_else(made)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("model {0:?}: its target names the provider {1:?}, which is not configured")]
    UnknownProvider(String, String),
}

impl Routing {
    /// Compiles the configuration's providers and models.
    ///
    /// # Errors
    /// A provider whose address, credential or certificates cannot be used.
    pub fn new(config: &Config) -> Result<Self, RoutingError> {
        let endpoints: Vec<Arc<Endpoint>> = config
            .providers
            .iter()
            .map(|provider| Endpoint::new(provider).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let mut routing = Self::default();
        for model in &config.models {
            let mut targets = Vec::with_capacity(model.targets.len());
            for target in &model.targets {
                let endpoint = endpoints.iter().find(|endpoint| *endpoint.name == *target.provider);
                let endpoint = endpoint
                    .ok_or_else(|| RoutingError::UnknownProvider(model.name.clone(), target.provider.clone()))?;
                targets.push(Arc::new(Target {
                    endpoint: Arc::clone(endpoint),
                    model: target.model.as_deref().map(Into::into),
                    label: target
                        .model
                        .as_deref()
                        .map(|model| format!("{}/{model}", endpoint.name).into()),
                    weight: target.weight,
                }));
            }
            let name: Arc<str> = model.name.as_str().into();
            let total_weight = targets.iter().map(|target| target.weight).sum();
            let compiled = Arc::new(Model {
                name: Arc::clone(&name),
                targets,
                rates: model.price.as_ref().map(|price| price.rates()),
                total_weight,
            });
            match name.strip_suffix('*') {
                Some(prefix) => routing.patterns.push((prefix.into(), compiled)),
                None => {
                    routing.names.push(Arc::clone(&name));
                    routing.exact.insert(name, compiled);
                }
            }
        }
        routing
            .patterns
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(routing)
    }

    /// Finds a model: its whole name first, then the longest fitting pattern.
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.exact.get(name).or_else(|| {
            let fits = |(prefix, _): &&(Box<str>, Arc<Model>)| name.starts_with(prefix.as_ref());
            self.patterns.iter().find(fits).map(|(_, model)| model)
        })
    }

    /// Names of all models that are not patterns.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }
}

impl Model {
    /// Picks a target by weight; `random` is uniform over all values.
    pub fn pick(&self, random: u32) -> &Arc<Target> {
        let mut point = ((u64::from(random) * u64::from(self.total_weight)) >> 32) as u32;
        for target in &self.targets {
            match point.checked_sub(target.weight) {
                Some(rest) => point = rest,
                None => return target,
            }
        }
        self.targets.last().expect("a configured model has a target")
    }
}
