//! Renders a view to HTML.

use std::path::Path;
use std::sync::Arc;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};

use super::assets::Assets;
use super::files::{self, TEMPLATES};
use super::views::PageView;
use crate::views::{ErrorView, PageLink};
use conclave_http::{Fault, RequestId, WayOn};

/// The page if even the built-in error page fails to render. Nothing in it needs escaping.
const LAST_RESORT: &str = "<!doctype html><title>Error</title><h1>Something went wrong</h1>";

/// The label of the link on error pages without a better link.
const START_PAGE: &str = "To the start page";

/// All pages. Cheap to clone; the templates are loaded once.
#[derive(Clone, Debug)]
pub struct Pages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    built_in: Environment<'static>,
    /// The built-in templates with the operator's replacements; `None` if nothing is replaced.
    replaced: Option<Environment<'static>>,
    assets: Assets,
}

impl Pages {
    /// Loads the operator's folder once. Templates that do not compile are logged and skipped.
    pub fn new(template_dir: Option<&Path>) -> Self {
        let built_in = built_in();
        let mut replaced = built_in.clone();
        let mut any = false;
        for (name, _) in TEMPLATES {
            let Some(source) = files::replacement(template_dir, name) else { continue };
            match replaced.add_template_owned(name, source) {
                Ok(()) => any = true,
                Err(error) => warn(name, &error),
            }
        }
        let assets = Assets::new(template_dir);
        Self(Arc::new(Inner { built_in, replaced: any.then_some(replaced), assets }))
    }

    /// The stylesheet and logo these pages refer to.
    pub fn assets(&self) -> &Assets {
        &self.0.assets
    }

    /// The page of a view.
    pub fn render<V: PageView>(&self, view: &V) -> String {
        let replaced = self.0.replaced.as_ref().and_then(|environment| {
            let page = self.draw(environment, view);
            page.inspect_err(|error| warn(V::TEMPLATE, error)).ok()
        });
        replaced.unwrap_or_else(|| {
            self.draw(&self.0.built_in, view).unwrap_or_else(|error| {
                tracing::error!(
                    template = V::TEMPLATE,
                    error = format!("{error:#}"),
                    "a built-in page failed"
                );
                LAST_RESORT.to_owned()
            })
        })
    }

    /// The page of a fault, for [`EdgeConfig::error_page`](conclave_http::EdgeConfig).
    pub fn fault(&self, fault: &Fault, id: &RequestId) -> String {
        self.error(fault.title, &fault.detail, fault.code, id.as_str(), fault.way_on.as_ref())
    }

    /// The page of a fault, from its parts.
    pub fn error(
        &self,
        title: &str,
        detail: &str,
        code: &str,
        request: &str,
        way_on: Option<&WayOn>,
    ) -> String {
        self.render(&ErrorView {
            title: title.to_owned(),
            detail: detail.to_owned(),
            what_to_do: None,
            code: code.to_owned(),
            request_id: request.to_owned(),
            back: Some(match way_on {
                Some(way) => PageLink { url: way.url.clone(), label: way.label.clone() },
                None => PageLink { url: "/".to_owned(), label: START_PAGE.to_owned() },
            }),
        })
    }

    fn draw<V: PageView>(&self, environment: &Environment<'_>, view: &V) -> Result<String, minijinja::Error> {
        let view = minijinja::Value::from_serialize(view);
        let assets = minijinja::Value::from_serialize(self.0.assets.urls());
        environment.get_template(V::TEMPLATE)?.render(context! { assets, ..view })
    }
}

fn built_in() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    // A misspelt variable in a replaced page must appear in the log and not as a gap on the page.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, source) in TEMPLATES {
        if let Err(error) = environment.add_template(name, source) {
            tracing::error!(template = name, %error, "a built-in page does not compile");
        }
    }
    environment
}

fn warn(name: &str, error: &minijinja::Error) {
    let error = format!("{error:#}");
    tracing::warn!(template = name, %error, "a replaced page does not work; the built-in one is used");
}

#[cfg(test)]
mod tests;
