/* What an epoll event leads to: embedded in whatever has a descriptor. */
#pragma once

#include <stdint.h>

struct monitor;

struct source {
        int fd;
        uint32_t events; /* registered */
        void (*ready)(struct monitor *monitor, struct source *source, uint32_t events);
};
