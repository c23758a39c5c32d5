/* The progress of long operations (pull, push, load, import): the daemon's stream
 * of messages, shown as docker shows it.
 *
 * On a terminal each layer has a line that is redrawn in place, with a bar; else
 * each message without numbers is a line. A message that is an error ends the
 * stream with that text. Rendering is apart from reading, so that it can be
 * tested.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"

struct json_object;
struct http_exchange;

struct progress {
        bool terminal;
        unsigned width; /* columns of the terminal */
        char **ids;     /* a line each, in order of appearance */
};

/* Appends what shows the message. -EREMOTEIO for a message that is an error. */
int progress_render(struct progress *progress, struct json_object *message, struct buf *out,
                    struct err *err);
void progress_finish(struct progress *progress);

/* Reads the whole reply and shows it on `fd`; -1 shows nothing, but an error still
 * is one. `aux` (may be NULL) is called with each "aux" object. */
int progress_show(struct http_exchange *exchange, int fd,
                  void (*aux)(void *arg, struct json_object *object), void *arg, struct err *err);
