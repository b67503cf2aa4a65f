"""The words on the painted pages: dishes, drinks, goods, names and sentences."""


def split(text: str) -> tuple[str, ...]:
    """Return the entries of a list with a semicolon between them."""
    return tuple(" ".join(entry.split()) for entry in text.split(";"))


DISHES = {
    "Starters": split("""Soup of the day; Onion soup; Bruschetta; Beef carpaccio; Goat cheese tart;
        Green salad; Caesar salad; Prawn cocktail; Olives & bread; Pâté maison; Vitello tonnato;
        Caprese; Gazpacho; Jamón ibérico; Stuffed peppers; Beetroot hummus"""),
    "Mains": split("""Roast chicken; Grilled salmon; Beef stew; Steak frites; Lamb shank;
        Mushroom risotto; Fish & chips; Coq au vin; Bœuf bourguignon; Pork belly; Duck confit;
        Vegetable curry; Moules marinière; Baked cod; Sea bass; Wiener Schnitzel; Ratatouille"""),
    "Pasta": split("""Spaghetti carbonara; Penne arrabbiata; Lasagne; Tagliatelle al ragù;
        Gnocchi al pesto; Linguine vongole; Ravioli ricotta; Cacio e pepe; Orecchiette"""),
    "Pizza": split("""Margherita; Marinara; Quattro formaggi; Capricciosa; Diavola; Prosciutto;
        Funghi; Calzone; Napoli; Ortolana; Tonno e cipolla; Hawaii"""),
    "From the grill": split("""Sirloin steak; Rib eye 300 g; Lamb chops; Chicken skewer; Merguez;
        Cheeseburger; Smoked ribs; Corn on the cob; Halloumi burger; Mixed grill; Pulled pork"""),
    "Noodles & Rice": split("""Fried rice; Pad Thai; Ramen; Udon soup; Chicken satay; Tempura;
        Spring rolls; Green curry; Dumplings (6); Sweet & sour pork; Miso soup; Beef pho"""),
    "Breakfast": split("Eggs Benedict; Pancakes; Porridge; Omelette; Granola bowl; French toast"),
    "Sandwiches": split("Club sandwich; Croque-monsieur; Tuna melt; Falafel wrap; BLT; Reuben"),
    "Desserts": split("""Crème brûlée; Tiramisù; Apple tart; Chocolate mousse; Panna cotta;
        Cheesecake; Lemon sorbet; Tarte tatin; Ice cream; Profiteroles; Fruit salad; Churros"""),
}
DRINKS = {
    "Coffee": split("""Espresso; Double espresso; Americano; Cappuccino; Flat white; Caffè latte;
        Macchiato; Mocha; Hot chocolate; Iced coffee; Café au lait"""),
    "Tea": split("English breakfast; Earl Grey; Green tea; Mint tea; Rooibos; Ginger & lemon"),
    "Soft drinks": split("""Mineral water; Lemonade; Orange juice; Apple juice; Ginger beer;
        Iced tea; Tomato juice; Elderflower; Tonic water; Cola"""),
    "Beer": split("Lager; Pale ale; Wheat beer; Stout; Pilsner; Cider; Shandy; Alcohol free"),
    "Wine": split("Chardonnay; Riesling; Pinot grigio; Merlot; Rioja; Chianti; Rosé; Champagne"),
    "Cocktails": split("Negroni; Mojito; Spritz; Margarita; Gin & tonic; Daiquiri; Old fashioned"),
}
INGREDIENTS = split("""tomato; basil; olive oil; roast garlic; parmesan; rocket; lemon; capers;
    new potatoes; red wine jus; thyme; cream; wild mushrooms; spinach; walnuts; honey; saffron;
    parsley butter; pine nuts; chorizo; fennel; mint yoghurt; pickled onions; toasted bread""")
HOUSES = split("""La Terrazza; Chez Louise; The Copper Pot; Casa Alba; Blue Door Café; El Patio;
    Trattoria Nonna; Le Petit Jardin; The Old Mill; Harbour Kitchen; Olive & Thyme; Bistro 24;
    Golden Lantern; The Fox Inn; Burger Yard; Café Central; Saffron; Noodle House; Bar Celeste""")
MENU_TITLES = split("Menu; MENU; La Carte; Our Menu; Lunch; Dinner Menu; Today; Specials; Carta")
DRINK_TITLES = split("Drinks; Bar; Drinks menu; To drink; Bebidas; DRINKS; Price list; Boissons")
MENU_NOTES = split("All prices include service; Please ask about allergens; Bon appétit; Cash only")

GOODS = split("""Milk 1 l; Bread; Butter; Eggs x10; Bananas; Tea bags; Rice 500 g; Soap; Stamps;
    Paper towels; Batteries AA; Notebook A5; Pencils; Light bulb; Yoghurt; Apples kg; Olive oil;
    Detergent; Toothpaste; Screws M4; Paint 2.5 l; Cat food; Shampoo; Socks; Espresso; Sandwich""")
SHOPS = split("CORNER MARKET; HARDWARE & HOME; CAFE CENTRAL; STATION KIOSK; GARDEN WORLD")
STREETS = split("4 Mill Lane; 16 Station Road; 7 High Street; 21 Church Row; 90 Bridge Street")
TOWNS = split("""Ashford; Norwick; Millbrook; Eastport; Langdale; Kingsbury; Redhill; Stonebridge;
    Westmere; Oakham; Fairview; Rivermouth; Hillgate; Sandbay; Northam; Applewood""")
SENTENCES = split("""The river had risen in the night and the lower road was closed until noon.;
    We would like to thank you for your order of the third of March.;
    No one in the village could say when the old clock had stopped.;
    The council will decide on the new bridge at its next meeting.;
    Please find enclosed the signed copy of the agreement for your records.;
    She folded the map, put it in her coat and walked on towards the station.;
    Should you have any questions, do not hesitate to call our office.;
    It was the kind of morning on which every sound carries.;
    The museum opens its new wing to the public on Saturday.;
    I look forward to meeting you and your colleagues in the autumn.;
    In the second part we turn to the measurements and what they mean.""")
HEADLINES = split("Bridge to close; Town hall opens; Late goal decides it; Winter comes early")
NEWSPAPERS = split("The Morning Courier; Valley Gazette; Evening Post; County Chronicle")
CHAPTERS = split("""The road north; A house by the river; Letters; What the miller saw; Method;
    First snow; Measurements; The long winter; Results; An unexpected guest; Sources; Preface""")
FORM_FIELDS = split("""Family name; First name; Date of birth; Street; Town; Postcode; Telephone;
    E-mail; Occupation; Signature; Place and date; Membership no.; Bank account; Nationality""")
FORM_TITLES = split("APPLICATION FORM; Registration; Change of address; Claim form; Order form")
NOTICES = split("NO PARKING; CLOSED; LOST CAT; OPEN DAY; SALE; CONCERT; WET PAINT; FOR RENT")
NOTICE_LINES = split("Private road; Back on Monday; Please call; Saturday 10 to 16; Do not touch")
