/* The i8042 with a keyboard on it: enough for a driver to find the keyboard, for
 * keys sent by the control socket, and for the reset line that old reboot code
 * pulls. There is no mouse.
 * Source: IBM PS/2 Hardware Interface Technical Reference.
 */
#pragma once

#include "vmm/machine.h"

struct keyboard;

int keyboard_create(struct machine *machine, struct keyboard **ret, struct err *err);
/* Scan codes of set 1, as they go over the line; -ENOSPC when the guest does not
 * take what it was sent before. THREAD-SAFE. */
int keyboard_send(struct keyboard *keyboard, const uint8_t *codes, size_t length);
