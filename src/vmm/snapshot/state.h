/* The state of a machine as bytes: named sections, one per part of it.
 *
 * A snapshot's `state` file is this and nothing else; its memory is a file beside it (see
 * snapshot.h). Layout, all numbers little endian:
 *
 *     header   "ISLESTAT", version u32, sections u32, size of the file u64, CRC-32 of all that
 *              follows the header u32, 4 bytes 0
 *     section  name, 40 bytes padded with NUL; version u32; size u32; that many bytes
 *
 * A section is "KIND.NUMBER" ("cpu.0", "pit.0", "virtio-blk.1"): devices of a kind count in
 * the order of building. Its version is its owner's: it grows when fields come to it, at the
 * end; an owner reads all its older ones, and refuses newer ones.
 *
 * What is read is hostile. The reader checks all that can be checked without knowing the
 * sections, before anything is handed out; a section's owner checks each value (a state must
 * not give a guest more than it could have reached by itself). Failures of reading are
 * remembered in the section, as in stdio: values after one are 0, and state_end() tells.
 *
 * Moments are CLOCK_MONOTONIC of this host in memory and the distance from `now_ns` in the
 * file: for the guest no time passes between saving and loading.
 *
 * Threads: none of its own. Everything is borrowed but the writer's buffer and the reader's
 * table. Limits: below.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define STATE_VERSION      1
#define STATE_SIZE_MAX     (64u << 20)
#define STATE_SECTIONS_MAX 512u
#define STATE_NAME_SIZE    40u /* with its NUL */

struct device;

/* ---- writing ---- */

struct state_writer {
        struct buf buf;
        int64_t now_ns; /* the moment of saving */
        unsigned sections;
        size_t section; /* where the header of the open one begins */
        bool failed;    /* more than STATE_SIZE_MAX, or too many sections */
};

void state_writer_init(struct state_writer *writer, int64_t now_ns);
void state_writer_finish(struct state_writer *writer);

/* Between them the section's values. The name is "KIND.NUMBER". */
void state_begin(struct state_writer *writer, const char *kind, unsigned number, uint32_t version);
void state_close(struct state_writer *writer);

void state_put(struct state_writer *writer, uint64_t value, unsigned size_bytes); /* 1, 2, 4, 8 */
void state_put_bytes(struct state_writer *writer, const void *bytes, size_t size);
/* 0 is no moment, and stays 0. */
void state_put_moment(struct state_writer *writer, int64_t moment_ns);

/* The whole, valid until the writer goes on or is finished. */
int state_seal(struct state_writer *writer, const void **ret_data, size_t *ret_size,
               struct err *err);

/* ---- reading ---- */

struct state_section {
        const char *file; /* for errors */
        char name[STATE_NAME_SIZE];
        uint32_t version;
        const uint8_t *data;
        size_t size, at;
        int64_t now_ns;
        bool taken, is_short;
        const char *bad; /* the first value that cannot be; NULL: none */
        uint64_t bad_value;
};

struct state_reader {
        const char *file;
        int64_t now_ns; /* the moment of loading */
        struct state_section *sections;
        unsigned length;
};

/* Checks header, checksum and the chain of sections. `data` must outlive the reader, as must
 * `file`, the name for errors. -EBADMSG for what is no state, -ENOTSUP for another version. */
int state_reader_init(struct state_reader *reader, const char *file, const void *data, size_t size,
                      int64_t now_ns, struct err *err);
void state_reader_finish(struct state_reader *reader);

/* The section, of this version or an older one. -ENOENT where there is none. */
int state_take(struct state_reader *reader, const char *kind, unsigned number, uint32_t version,
               struct state_section **ret, struct err *err);
/* -EBADMSG, naming the first section that nobody took. */
int state_all_taken(const struct state_reader *reader, struct err *err);

uint64_t state_get(struct state_section *section, unsigned size_bytes);
/* The same of what is at most `max`; else the section is bad at `what`, and this 0. */
uint64_t state_get_max(struct state_section *section, const char *what, unsigned size_bytes,
                       uint64_t max);
void state_get_bytes(struct state_section *section, void *bytes, size_t size);
int64_t state_get_moment(struct state_section *section, const char *what);
/* How many bytes are left. */
size_t state_left(const struct state_section *section);
/* -EBADMSG where values were missing or bad, or where some are left. */
int state_end(const struct state_section *section, struct err *err);
/* -EBADMSG with "snapshot 'FILE': section 'NAME': ..." */
int state_refuse(const struct state_section *section, struct err *err, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* ---- tables ---- */

/* Members of a structure: numbers of 1 to 8 bytes, or moments (int64_t). */
struct state_field {
        const char *name;
        size_t offset;
        unsigned size_bytes; /* of one */
        unsigned length;     /* how many */
        uint64_t max;        /* the greatest value that can be */
        bool moment;
};

#define STATE_FIELD(type, member, max)                                                             \
        {                                                                                          \
#member, offsetof(type, member), sizeof(((type *)0)->member), 1, max, false        \
        }
#define STATE_ARRAY(type, member, max)                                                             \
        {                                                                                          \
#member, offsetof(type, member), sizeof(((type *)0)->member[0]),                   \
                        sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), max, false   \
        }
#define STATE_MOMENT(type, member)                                                                 \
        {                                                                                          \
#member, offsetof(type, member), 8, 1, UINT64_MAX, true                            \
        }

void state_put_fields(struct state_writer *writer, const void *object,
                      const struct state_field *fields, size_t length);
/* Stores nothing where a value is missing or bad: state_end() tells. */
void state_get_fields(struct state_section *section, void *object, const struct state_field *fields,
                      size_t length);

/* ---- devices ---- */

/* How a device is saved: device->state, set with machine_add_device(). A device without makes
 * the machine one that cannot be saved.
 *
 * save: vCPUs stand and workers are held (workers_hold()); on the loop's thread. May refuse
 * with an error of its own, which names what is in the way. A device takes its own lock.
 * load: into a device that was just built by the same configuration, before any vCPU ran;
 * interrupt chips and memory are loaded, so it drives its interrupt line as it stands. It must
 * leave nothing half-loaded that could do harm: after a failure the machine is destroyed. */
struct state_ops {
        uint32_t version;
        int (*save)(struct device *device, struct state_writer *writer, struct err *err);
        int (*load)(struct device *device, struct state_section *section, struct err *err);
};

/* Of a device that has nothing to be saved. */
extern const struct state_ops state_nothing;
