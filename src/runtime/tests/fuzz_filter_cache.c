/* A file of the filter cache: two bytes say how long the key is that is asked for. */
#include <stdint.h>
#include <stdlib.h>

#include "runtime/filter_cache.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size < 2)
                return 0;
        size_t key_size = data[0] | (size_t)data[1] << 8;
        size_t header = 2 + sizeof(struct filter_cache_header);
        struct buf key = { 0 };
        /* The key that the file claims, where it has as many bytes. */
        if (size >= header && size - header >= key_size)
                buf_append(&key, data + header, key_size);
        struct seccomp_program program;
        if (filter_cache_parse(data + 2, size - 2, &key, &program) == 0) {
                if (program.length == 0 || program.length > BPF_MAXINSNS)
                        abort();
                seccomp_program_finish(&program);
        }
        buf_finish(&key);
        return 0;
}
