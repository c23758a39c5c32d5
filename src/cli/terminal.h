/* The terminal of the person at the keyboard.
 *
 * Raw mode must never outlive the program: it is undone by terminal_restore(),
 * at exit(), and before a fatal signal kills (terminal.c installs handlers for
 * those while raw). Only one terminal can be raw at a time. Not thread-safe.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"

bool terminal_is(int fd);

/* Rows and columns; -errno where there are none. */
int terminal_size(int fd, unsigned *ret_rows, unsigned *ret_columns);
/* Columns to lay text out for: the terminal's, or 80. */
unsigned terminal_width(int fd);

int terminal_raw(int fd, struct err *err);
/* Idempotent. */
void terminal_restore(void);
/* Echo off or on, for passwords; also undone at exit. */
int terminal_hide(int fd, struct err *err);
