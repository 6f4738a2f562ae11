// Package playbooks says what a node should look like. A playbook is a YAML file that names users, directories, files,
// kernel parameters, open ports and systemd units; [Compile] renders all of them for one node, with what the fleet file
// says, into the [spec.Node] that the agent applies. It reads files and computes; it reaches no machine, keeps no state,
// and the same input gives the same bytes. A bad playbook is refused whole, every problem with file, line and column.
//
// # Adding one
//
// Put a file into playbooks/ of the operator's folder, `<two digits>-<name>.yaml`. Files are applied in the order of
// their names, the built-in ones (builtin/ beside this text) among them: 10-base, 20-store, 30-replicator, 40-app,
// 50-dns, 60-transport, 70-agent, 90-firewall. A file with a built-in one's name takes its place.
//
//	playbook: metrics            # a word for people
//	service:                     # optional: makes user and group fleet-metrics (member of fleet), and the check
//	  name: metrics
//	  check: 30s                 # how long its control socket may take to answer healthy
//	ports:
//	  - {port: 9100, proto: tcp, from: fleet}   # fleet: only from other nodes; any: from everywhere
//	files:
//	  - path: /etc/fleet/metrics.json
//	    group: fleet-metrics     # owner and group default to root, mode to 0644
//	    mode: "0640"
//	    format: json             # the rendered text must be one JSON value; it is indented for you
//	    restart: [fleet-metrics.service]
//	    content: |
//	      {"node": {{json .Node.Name}}, "listen": ":9100"}
//	units:
//	  - name: fleet-metrics.service
//	    release: bin/metrics     # the release's file it runs; a new one restarts the unit
//	    content: |
//	      [Unit]
//	      Description=metrics
//	      [Service]
//	      ExecStart=/opt/fleet/current/bin/metrics --config /etc/fleet/metrics.json
//	      {{template "service" "metrics"}}
//	      {{template "sealed"}}
//	      [Install]
//	      WantedBy=multi-user.target
//
// Every text under `content`, `when`, `secret`, `release`, `tls.names` and `nftables` is a Go template over [Vars]; an
// unknown field is an error. Functions: json (any value), env (a line of a systemd EnvironmentFile). The templates
// "service" and "sealed" are the hardening that all services share (builtin/templates). `when` that renders to anything
// but true leaves the whole playbook out.
package playbooks
