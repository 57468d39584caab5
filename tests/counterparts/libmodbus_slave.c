/* An independent Modbus unit for the tests, made with libmodbus (Debian package libmodbus-dev).
 *
 *   libmodbus_slave rtu PATH UNIT        on a serial line of 115200 baud, 8N1
 *   libmodbus_slave tcp PORT             on 127.0.0.1
 *
 * Holding register 10 holds 4711, input register 10 holds 815; there are 500 places in each table. It prints "ready" when
 * it can be asked, and runs until it is killed.
 */
#include <modbus/modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 3)
        return 64;
    int tcp = strcmp(argv[1], "tcp") == 0;
    modbus_t *context = tcp ? modbus_new_tcp("127.0.0.1", atoi(argv[2])) : modbus_new_rtu(argv[2], 115200, 'N', 8, 1);
    modbus_mapping_t *places = modbus_mapping_new(500, 500, 500, 500);
    if (context == NULL || places == NULL)
        return 1;
    places->tab_registers[10] = 4711;
    places->tab_input_registers[10] = 815;
    int listener = -1;
    if (tcp) {
        listener = modbus_tcp_listen(context, 1);
        if (listener == -1)
            return 1;
    } else if (modbus_set_slave(context, atoi(argv[3])) == -1 || modbus_connect(context) == -1) {
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        if (tcp && modbus_tcp_accept(context, &listener) == -1)
            return 1;
        for (;;) {
            int length = modbus_receive(context, request);
            if (length > 0)
                modbus_reply(context, request, length, places);
            else if (length == -1 && tcp)
                break;
        }
        modbus_close(context);
    }
}
