"""The parts of benches/run: `processes` starts what is measured, `scenarios` says with which requests, `load` drives it,
`measure` takes turns and reads CPU time, `report` prints; `syscalls` counts system calls instead."""
