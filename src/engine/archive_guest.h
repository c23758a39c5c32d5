/* docker cp into and out of a machine whose guest alone sees the files as the container does. */
#pragma once

#include "agent/collect.h"
#include "agent/extract.h"
#include "engine/core.h"
#include "engine/tar_source.h"

/* Passes the archive, not compressed, to the runtime's `extract`. Of `to` the place as the user
 * named it, the owner and what must not be overwritten are used; the guest resolves the place.
 * Blocks, for as long as the archive's sender and the guest take; a guest that stops taking it is
 * an error in the end (guest/session.h). */
int archive_guest_put(struct engine *engine, const char *id, const struct extract *to,
                      struct tar_source *source, struct err *err);

/* What the guest says of a file. */
struct guest_file {
        uint32_t mode; /* stat(2)'s */
        int64_t size_bytes, mtime_ns;
        char *link; /* where it leads, or NULL */
};
void guest_file_finish(struct guest_file *file);
#define auto_guest_file CLEANUP(guest_file_finish) struct guest_file

/* The runtime's `archive`, under way. */
struct archive_guest {
        pid_t pid;   /* 0: none */
        int archive; /* where it comes, of io_stream(); whoever takes it puts -1 */
        int writer;  /* the other end, which the runtime has too */
        int words;   /* what it says of errors */
};

/* Of `from` the names are used. Blocks until the guest has found the file; with `look` that was
 * all, and *ret stays. The archive is one that is safe to unpack (guest/relay.h). */
int archive_guest_get(struct engine *engine, const char *id, const struct collect *from, bool look,
                      struct guest_file *ret_file, struct archive_guest *ret, struct err *err);
/* Until the archive is whole, or failed: its reader is told. Blocks. */
int archive_guest_wait(struct archive_guest *guest, struct err *err);
/* Ends one that has not. */
void archive_guest_finish(struct archive_guest *guest);
