/* Errors: a code for the program and a story for the person.
 *
 * Functions return 0 or a positive value on success and -errno on failure. The
 * story is told in a caller-owned `struct err` passed last; it may be NULL when
 * nobody will read it. The object holds its text in place: it needs no
 * allocation (so reporting cannot itself fail), no cleanup, and may be copied
 * by assignment. Text beyond ERR_TEXT_SIZE is cut.
 *
 * The innermost failure calls err_set(); callers on the way up put what they
 * were doing in front with err_wrap():
 *
 *         start container web: mount /proc: Operation not permitted
 *
 * A story that reaches a user names the thing, the value and the way out.
 */
#pragma once

#include <stdarg.h>

#define ERR_TEXT_SIZE 1024

struct err {
        int code; /* errno value, 0 when nothing is set */
        char text[ERR_TEXT_SIZE];
};

/* Sets `err` to "message: strerror(code)" and returns -code. `code` is a
 * positive errno value. The message must not end with a colon or newline. */
int err_set(struct err *err, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* As err_set, but the message already says all: no strerror text is added. */
int err_plain(struct err *err, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

int err_plainv(struct err *err, int code, const char *format, va_list ap)
        __attribute__((format(printf, 3, 0)));

/* Puts "message: " before the text and returns -code. The callee must have
 * set the story (every function that takes an err does so when it fails);
 * where it did not, EIO is reported. With a NULL `err` returns -EIO: a caller
 * that needs the code keeps its own `r`. */
int err_wrap(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "; message", the way out, behind the text and returns -code. */
int err_advise(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Forgets what was recorded, for a caller that recovers. */
void err_clear(struct err *err);

/* The text to show; never NULL. */
const char *err_text(const struct err *err);
