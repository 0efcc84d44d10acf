//! The lab as its users meet it: the real binary, the real plugins, real signals and full disks.

mod kill_and_resume;
