// Package version holds the build's version, set by the linker.
package version

// Version is what every binary prints for --version; "dev" when built without the Makefile.
var Version = "dev"
