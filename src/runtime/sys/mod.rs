//! Every libc call of the project.
