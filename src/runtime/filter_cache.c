#include "runtime/filter_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/table.h"

#define KEY_VERSION    2 /* of what the compiler makes of a profile */
#define DIRECTORY      ".seccomp"
#define FILE_BYTES_MAX ((size_t)1 << 20)

static void put_number(struct buf *key, uint64_t number)
{
        buf_append(key, &number, sizeof(number));
}

/* With the final NUL, so that no two lists look alike. */
static void put_text(struct buf *key, const char *text)
{
        buf_append(key, text, strlen(text) + 1);
}

static void put_list(struct buf *key, char *const *list)
{
        put_number(key, list ? strv_length((char **)list) : 0);
        for (; list && *list; list++)
                put_text(key, *list);
}

void filter_cache_key(const struct seccomp_profile *profile, struct buf *ret)
{
        struct utsname host;
        if (uname(&host) < 0)
                memset(&host, 0, sizeof(host));
        put_text(ret, ISLE_VERSION);
        put_number(ret, KEY_VERSION);
        put_text(ret, seccomp_compiler());
        put_text(ret, host.release);
        put_number(ret, profile->default_action);
        put_number(ret, profile->default_errno);
        put_list(ret, profile->architectures);
        put_number(ret, profile->rules_length);
        for (size_t i = 0; i < profile->rules_length; i++) {
                const struct seccomp_rule *rule = &profile->rules[i];
                put_list(ret, rule->names);
                put_number(ret, rule->action);
                put_number(ret, rule->errno_value);
                put_number(ret, rule->conditions_length);
                for (size_t k = 0; k < rule->conditions_length; k++) {
                        put_number(ret, rule->conditions[k].index);
                        put_number(ret, rule->conditions[k].compare);
                        put_number(ret, rule->conditions[k].value);
                        put_number(ret, rule->conditions[k].value_two);
                }
        }
}

int filter_cache_parse(const void *bytes, size_t size, const struct buf *key,
                       struct seccomp_program *ret)
{
        struct filter_cache_header header;
        if (size < sizeof(header))
                return -EBADMSG;
        memcpy(&header, bytes, sizeof(header));
        if (memcmp(header.magic, FILTER_CACHE_MAGIC, sizeof(header.magic)) != 0 ||
            header.notifies > 1 || header.zero != 0 || header.length == 0 ||
            header.length > BPF_MAXINSNS || header.key_size > size - sizeof(header))
                return -EBADMSG;
        const char *held = (const char *)bytes + sizeof(header);
        size_t code_size = header.length * sizeof(struct sock_filter);
        if (size - sizeof(header) - header.key_size != code_size)
                return -EBADMSG;
        if (header.key_size != key->size || memcmp(held, key->data, key->size) != 0)
                return -ENOENT;
        *ret = (struct seccomp_program){
                .code = xmemdup(held + header.key_size, code_size),
                .length = header.length,
                .notifies = header.notifies,
        };
        return 0;
}

static char *slot_path(const char *root, const struct buf *key)
{
        uint64_t hash = hash_bytes(key->data, key->size, 0);
        return xasprintf("%s/" DIRECTORY "/%02x", root, (unsigned)(hash % FILTER_CACHE_SLOTS));
}

int filter_cache_load(const char *root, const struct buf *key, struct seccomp_program *ret)
{
        auto_free char *path = slot_path(root, key);
        auto_fd fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
            st.st_mode & 0022)
                return -ENOENT;
        auto_free char *bytes = NULL;
        size_t size;
        if (file_read_fd(fd, FILE_BYTES_MAX, &bytes, &size, NULL) < 0)
                return -ENOENT;
        return filter_cache_parse(bytes, size, key, ret) < 0 ? -ENOENT : 0;
}

void filter_cache_store(const char *root, const struct buf *key,
                        const struct seccomp_program *program)
{
        struct filter_cache_header header = {
                .magic = FILTER_CACHE_MAGIC,
                .key_size = (uint32_t)key->size,
                .length = (uint32_t)program->length,
                .notifies = program->notifies,
        };
        auto_buf file = { 0 };
        buf_append(&file, &header, sizeof(header));
        buf_append(&file, key->data, key->size);
        buf_append(&file, program->code, program->length * sizeof(*program->code));
        auto_free char *directory = xasprintf("%s/" DIRECTORY, root);
        if (file.size > FILE_BYTES_MAX || (mkdir(directory, 0700) < 0 && errno != EEXIST))
                return;
        auto_free char *path = slot_path(root, key);
        file_replace(AT_FDCWD, path, file.data, file.size, 0600, false, NULL);
}
