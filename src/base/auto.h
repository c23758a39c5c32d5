/* Ownership by scope.
 *
 * A local declared `auto_fd fd = -1;` is closed when it leaves scope, and so on
 * for the other kinds. Hand-over to somebody else is written out:
 * `*ret_fd = take_fd(fd)` empties the local so that the cleanup does nothing.
 * Nothing here may be used for a static or a struct member.
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(fn) __attribute__((cleanup(fn)))

/* Defines `static void name(type *p)` that calls `destroy(*p)` for use with
 * CLEANUP; `destroy` must accept NULL. */
#define DEFINE_CLEANUP(name, type, destroy)                                                        \
        static inline __attribute__((unused)) void name(type *p)                                   \
        {                                                                                          \
                destroy(*p);                                                                       \
        }

static inline void auto_free_cleanup(void *p)
{
        int saved = errno;
        free(*(void **)p);
        errno = saved;
}

static inline void auto_fd_cleanup(const int *fd)
{
        if (*fd >= 0) {
                int saved = errno;
                close(*fd);
                errno = saved;
        }
}

static inline void auto_file_cleanup(FILE **file)
{
        if (*file)
                fclose(*file);
}

static inline void auto_dir_cleanup(DIR **dir)
{
        if (*dir)
                closedir(*dir);
}

#define auto_free CLEANUP(auto_free_cleanup)
#define auto_fd   CLEANUP(auto_fd_cleanup) int
#define auto_file CLEANUP(auto_file_cleanup) FILE *
#define auto_dir  CLEANUP(auto_dir_cleanup) DIR *

/* Yields the pointer and leaves NULL behind. */
#define take_ptr(p)                                                                                \
        ({                                                                                         \
                __typeof__(p) *take_slot_ = &(p);                                                  \
                __auto_type take_value_ = *take_slot_;                                             \
                *take_slot_ = NULL;                                                                \
                take_value_;                                                                       \
        })

/* Yields the descriptor and leaves -1 behind. */
#define take_fd(fd)                                                                                \
        ({                                                                                         \
                int *take_slot_ = &(fd);                                                           \
                int take_value_ = *take_slot_;                                                     \
                *take_slot_ = -1;                                                                  \
                take_value_;                                                                       \
        })

/* Closes a descriptor that may be -1 and marks the slot closed; keeps errno. */
static inline void close_fd(int *fd)
{
        auto_fd_cleanup(fd);
        *fd = -1;
}
