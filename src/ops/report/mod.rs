//! One page that shows how backups have been doing: verdict, charts, tables, for people to read,
//! print and pass on.
//!
//! `gather` makes plain data of what `status` and `stats` found, bounded whatever the repository
//! holds; `render` makes the page of it. The page is whole: no script, no font, no image and no
//! address outside of it, and its policy forbids the browser to load any.

mod charts;
mod gather;
mod kept;
mod markup;
mod page;
mod parts;
mod sections;

pub use gather::Report;
pub use gather::ReportOptions;
pub use gather::gather;
pub use page::render;
