/* An archive that a guest sends of a file or a tree, on its way to whoever asked for it.
 *
 * The guest is hostile, and whoever unpacks trusts the archive to be what was asked for. So nothing
 * of the guest's bytes goes on: the archive is read (codec/tar.h), each entry held to the rules,
 * and a new archive written of what was read. The rules: the first entry is called as asked; each
 * other lies in a directory that the entry before it is or lies in, at any depth, as in a walk of a
 * tree, and so never behind a link; names are plain; a hard link leads to a name beneath the first
 * entry's; attributes are a user's or capabilities. Blocks, one thread, memory does not grow with
 * the size. */
#pragma once

#include "base/err.h"
#include "codec/tar.h"

/* Some bytes of the connection, 0 at its end, or -errno. */
typedef ssize_t relay_read(void *arg, void *room, size_t size, struct err *err);

/* From docker's frames (agent/message.h: archive) to a tar stream. -EPROTO for what breaks the
 * rules, -ECONNRESET for an archive that was cut short, or what the guest said of its failure. */
int relay_archive(relay_read *read, void *read_arg, const char *as, tar_write *write,
                  void *write_arg, struct err *err);
