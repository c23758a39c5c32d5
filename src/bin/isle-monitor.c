/* isle-monitor: minds one instance. See monitor/monitor.h. */
#include <stdio.h>

#include "monitor/monitor.h"

int main(int argc, char **argv)
{
        struct monitor_options options;
        struct err err = { 0 };
        if (monitor_options_parse(argc, argv, &options, &err) < 0) {
                fprintf(stderr, "isle-monitor: %s\n", err_text(&err));
                return 2;
        }
        return monitor_run(&options);
}
