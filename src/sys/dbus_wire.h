/* Messages of D-Bus: calls are written, whatever arrives is read.
 *
 * Only what sys/systemd.c needs is known. Writing appends to a buffer whose beginning
 * counts as aligned to 8 bytes, as header and body of a message do; so what was written
 * apart may be appended at any multiple of 8.
 *
 * Reading allocates nothing: texts point into the message, whose bytes must outlive
 * them. Whatever is not well-formed is an error; unknown header fields are passed over.
 *
 * Source: D-Bus Specification 0.42, "Type System" and "Message Protocol".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

#define DBUS_MESSAGE_SIZE_MAX ((size_t)1 << 20) /* ours; the protocol allows 128 MiB */

enum dbus_type {
        DBUS_METHOD_CALL = 1,
        DBUS_METHOD_RETURN = 2,
        DBUS_ERROR = 3,
        DBUS_SIGNAL = 4,
};

void dbus_put_byte(struct buf *to, uint8_t value);
void dbus_put_u32(struct buf *to, uint32_t value); /* also booleans */
void dbus_put_u64(struct buf *to, uint64_t value);
void dbus_put_string(struct buf *to, const char *text); /* also object paths */
void dbus_put_signature(struct buf *to, const char *text);
/* Zeroes up to a multiple of `alignment`: structures begin at 8. */
void dbus_put_padding(struct buf *to, size_t alignment);

struct dbus_array {
        size_t length_at, start;
};

/* Elements that are put between the two are the array's. */
struct dbus_array dbus_array_begin(struct buf *to, size_t element_alignment);
void dbus_array_end(struct buf *to, struct dbus_array array);

struct dbus_call {
        uint32_t serial;
        const char *destination, *path, *interface, *member;
        const char *signature;  /* NULL with no body */
        const struct buf *body; /* NULL for none */
};

/* Appends the whole message, which wants an answer. */
void dbus_put_call(struct buf *to, const struct dbus_call *call);

struct dbus_message {
        enum dbus_type type;
        uint32_t serial, reply_serial; /* 0 where it is no reply */
        const char *path, *interface, *member, *error, *sender, *signature; /* NULL: none */
        const uint8_t *body;
        size_t body_size;
        bool big_endian;
};

/* Size of the message whose beginning this is; 0 where that is not known yet,
 * -EBADMSG where it is none, -EMSGSIZE beyond DBUS_MESSAGE_SIZE_MAX. */
ssize_t dbus_message_size(const void *data, size_t size);
/* `size` is exactly the message's. Returns 0 or -EBADMSG. */
int dbus_parse(const void *data, size_t size, struct dbus_message *ret, struct err *err);

struct dbus_reader {
        const uint8_t *data;
        size_t size, at;
        bool big_endian;
};

/* Over the body of a message. The getters return 0 or -EBADMSG and move on. */
struct dbus_reader dbus_read_body(const struct dbus_message *message);
int dbus_get_byte(struct dbus_reader *reader, uint8_t *ret);
int dbus_get_u32(struct dbus_reader *reader, uint32_t *ret);
int dbus_get_string(struct dbus_reader *reader, const char **ret);
int dbus_get_signature(struct dbus_reader *reader, const char **ret);
/* A variant that holds a text; -EBADMSG for any other. */
int dbus_get_variant_string(struct dbus_reader *reader, const char **ret);
