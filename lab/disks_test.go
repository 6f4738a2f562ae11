package lab

import "testing"

func TestNewDisk(t *testing.T) {
	for d, ok := range map[NewDisk]bool{
		{1, "NEW1", 20}: true, {0, "x", 1}: true, {2, "NEW1", 20}: false, {-1, "NEW1", 20}: false, {1, "", 20}: false,
		{1, "a,serial=b", 20}: false, {1, "NEW1", 0}: false, {1, "NEW1", 1 << 40}: false,
	} {
		if err := d.check(); (err == nil) != ok {
			t.Errorf("%+v: %v", d, err)
		}
	}
}
