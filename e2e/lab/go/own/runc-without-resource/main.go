// Runc-without-resource is an OCI runtime for machines that do not have CAP_SYS_RESOURCE themselves.
// It takes that capability out of the container's specification, which runc could not grant, and becomes runc.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
)

const missing = "CAP_SYS_RESOURCE"

func main() {
	if err := become(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runc-without-resource:", err)
		os.Exit(1)
	}
}

func become(args []string) error {
	for i := 0; i+1 < len(args); i++ {
		var file string
		switch args[i] {
		case "--bundle", "-b":
			file = filepath.Join(args[i+1], "config.json")
		case "--process", "-p":
			file = args[i+1]
		default:
			continue
		}
		if err := strip(file); err != nil {
			return err
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return syscall.Exec(runc, append([]string{"runc"}, args...), os.Environ())
}

// strip rewrites a container's or a process's specification; a file that is not there yet is runc's to complain about.
func strip(file string) error {
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	} else if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	process := spec
	if inner, ok := spec["process"].(map[string]any); ok {
		process = inner
	}
	sets, ok := process["capabilities"].(map[string]any)
	if !ok {
		return nil
	}
	for name, set := range sets {
		if list, ok := set.([]any); ok {
			sets[name] = slices.DeleteFunc(list, func(c any) bool { return c == missing })
		}
	}
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}
