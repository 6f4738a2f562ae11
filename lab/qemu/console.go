package qemu

const powerOnMark = "power on, boot "
