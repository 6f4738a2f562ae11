package debian

import "testing"

func TestParseTargets(t *testing.T) {
	tests := map[string]struct{ targets, main, security string }{
		"debian": {"bookworm main http://mirror.example/debian/\nbookworm-updates main http://mirror.example/debian/\nbookworm-security main http://mirror.example/debian-security/\n",
			"http://mirror.example/debian", "http://mirror.example/debian-security"},
		"others' repositories": {"nodistro main https://packages.example/node_20.x/\nbookworm contrib http://a/debian\n", "", ""},
		"local mirror":         {"bookworm main https://mirror.example/debian/\n", "https://mirror.example/debian", ""},
		"cdrom":                {"bookworm main cdrom://disc/\nrubbish\n", "", ""},
	}
	for name, tt := range tests {
		if main, security := parseTargets(tt.targets); main != tt.main || security != tt.security {
			t.Errorf("%s: %q, %q", name, main, security)
		}
	}
}
