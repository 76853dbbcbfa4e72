//! Pages, rendered on the server. They contain no script except one: the form that posts itself back to a client, which
//! also works by its button.
//!
//! Owns the templates, the stylesheet and logo, and CSRF tokens. It knows no rules: it receives finished view structs
//! and returns HTML. An operator may replace any template, the stylesheet or the logo by a file of that name in
//! `http.template_dir`. If a replacement does not work, a warning is logged and the built-in one is used. Everything is
//! always escaped.

pub mod assets;
pub mod csrf;
mod files;
pub mod pages;
mod render;
pub mod views;

pub use self::assets::Assets;
pub use self::render::Pages;
