"""The words on the painted pages: dishes, drinks, goods, names and sentences."""

# Packed by hand: one word a line would make this file a mile long.
# fmt: off
DISHES = {
    "Starters": (
        "Soup of the day", "Onion soup", "Tomato soup", "Bruschetta", "Beef carpaccio",
        "Goat cheese tart", "Green salad", "Caesar salad", "Prawn cocktail", "Olives & bread",
        "Garlic mushrooms", "Pâté maison", "Vitello tonnato", "Caprese", "Gazpacho",
        "Jamón ibérico", "Stuffed peppers", "Duck rillettes", "Beetroot hummus",
    ),
    "Mains": (
        "Roast chicken", "Grilled salmon", "Beef stew", "Steak frites", "Lamb shank",
        "Mushroom risotto", "Fish & chips", "Coq au vin", "Bœuf bourguignon", "Pork belly",
        "Vegetable curry", "Duck confit", "Moules marinière", "Baked cod", "Sea bass",
        "Wiener Schnitzel", "Goulash", "Paella de mariscos", "Ratatouille", "Veal liver",
    ),
    "Pasta": (
        "Spaghetti carbonara", "Penne arrabbiata", "Lasagne", "Tagliatelle al ragù",
        "Gnocchi al pesto", "Linguine vongole", "Ravioli ricotta", "Cacio e pepe", "Orecchiette",
        "Rigatoni alla norma", "Cannelloni", "Fettuccine Alfredo",
    ),
    "Pizza": (
        "Margherita", "Marinara", "Quattro formaggi", "Capricciosa", "Diavola", "Prosciutto",
        "Funghi", "Calzone", "Napoli", "Ortolana", "Tonno e cipolla", "Hawaii",
    ),
    "From the grill": (
        "Sirloin steak", "Rib eye 300 g", "T-bone steak", "Lamb chops", "Chicken skewer",
        "Cheeseburger", "Smoked ribs", "Merguez", "Corn on the cob", "Halloumi burger",
        "Mixed grill", "Pulled pork",
    ),
    "Sides": (
        "French fries", "Rice", "Baked potato", "Green beans", "Coleslaw", "Garlic bread",
        "Mashed potato", "Grilled vegetables", "Side salad", "Sweet potato fries",
    ),
    "Noodles & Rice": (
        "Fried rice", "Pad Thai", "Ramen", "Udon soup", "Chicken satay", "Spring rolls",
        "Green curry", "Dumplings (6)", "Sweet & sour pork", "Miso soup", "Beef pho",
        "Salmon maki", "Tempura",
    ),
    "Breakfast": (
        "Eggs Benedict", "Pancakes", "Porridge", "Croissant", "Full breakfast", "Granola bowl",
        "French toast", "Omelette", "Avocado toast", "Bagel & salmon", "Waffles",
    ),
    "Sandwiches": (
        "Club sandwich", "Croque-monsieur", "Tuna melt", "Ham & cheese", "Falafel wrap", "BLT",
        "Panini caprese", "Reuben", "Egg mayonnaise", "Chicken baguette",
    ),
    "Desserts": (
        "Crème brûlée", "Tiramisù", "Apple tart", "Chocolate mousse", "Panna cotta", "Cheesecake",
        "Lemon sorbet", "Tarte tatin", "Ice cream", "Profiteroles", "Flan casero", "Fruit salad",
        "Cheese board", "Churros",
    ),
}

DRINKS = {
    "Coffee": (
        "Espresso", "Double espresso", "Americano", "Cappuccino", "Flat white", "Caffè latte",
        "Macchiato", "Mocha", "Hot chocolate", "Iced coffee", "Filter coffee", "Café au lait",
    ),
    "Tea": (
        "English breakfast", "Earl Grey", "Green tea", "Mint tea", "Camomile", "Rooibos",
        "Chai latte", "Ginger & lemon",
    ),
    "Soft drinks": (
        "Mineral water", "Lemonade", "Orange juice", "Apple juice", "Ginger beer", "Iced tea",
        "Tomato juice", "Elderflower", "Tonic water", "Cola",
    ),
    "Beer": (
        "Lager", "Pale ale", "Wheat beer", "Stout", "Pilsner", "Bitter", "Cider", "Shandy",
        "Amber ale", "Alcohol free",
    ),
    "Wine": (
        "Chardonnay", "Riesling", "Sauvignon blanc", "Pinot grigio", "Merlot", "Rioja", "Chianti",
        "Malbec", "Côtes du Rhône", "Rosé", "Prosecco", "Champagne brut",
    ),
    "Cocktails": (
        "Negroni", "Mojito", "Aperol spritz", "Margarita", "Gin & tonic", "Old fashioned",
        "Daiquiri", "Bloody Mary", "Espresso martini", "Caipirinha", "Bellini",
    ),
}

INGREDIENTS = (
    "tomato", "basil", "olive oil", "roast garlic", "parmesan", "rocket", "lemon", "capers",
    "new potatoes", "red wine jus", "thyme", "cream", "wild mushrooms", "spinach", "walnuts",
    "honey", "goat cheese", "parsley butter", "pine nuts", "chorizo", "saffron", "fennel",
    "mint yoghurt", "pickled onions", "chilli", "coriander", "toasted bread", "mustard", "leeks",
    "seasonal vegetables", "vanilla", "caramel", "berries", "rosemary", "smoked bacon",
)

HOUSES = (
    "La Terrazza", "Chez Louise", "The Copper Pot", "Casa Alba", "Blue Door Café",
    "Trattoria Nonna", "Le Petit Jardin", "The Old Mill", "El Patio", "Harbour Kitchen",
    "Olive & Thyme", "Bistro 24", "Golden Lantern", "The Fox Inn", "Osteria del Ponte",
    "Burger Yard", "Café Central", "Saffron", "Noodle House", "Marktstube", "Taverna Mythos",
    "Bar Celeste",
)

MENU_TITLES = (
    "Menu", "MENU", "La Carte", "Our Menu", "Lunch", "Dinner Menu", "Menù del giorno", "Today",
    "Specials", "Carta", "À la carte", "Speisekarte",
)
DRINK_TITLES = (
    "Drinks", "Bar", "Drinks menu", "To drink", "Getränke", "Bebidas", "DRINKS",
    "Price list", "Boissons",
)
MENU_NOTES = (
    "All prices include service", "Please ask us about allergens",
    "Vegetarian dishes are marked *", "Kitchen open from noon to ten", "Buon appetito!",
    "Bon appétit", "Served with bread", "Cash only, thank you",
    "Half portions for children on request",
)

GOODS = (
    "Milk 1 l", "Bread", "Butter", "Eggs x10", "Bananas", "Tea bags", "Rice 500 g", "Soap",
    "Paper towels", "Batteries AA", "Notebook A5", "Pencils", "Light bulb", "Yoghurt",
    "Apples kg", "Olive oil", "Detergent", "Toothpaste", "Screws M4", "Paint 2.5 l", "Cat food",
    "Carrots", "Shampoo", "Socks", "Stamps", "Envelope C5", "Espresso", "Sandwich",
    "Mineral water",
)
SHOPS = (
    "CORNER MARKET", "GREEN GROCER", "HARDWARE & HOME", "BOOKS & PAPER", "CAFE CENTRAL",
    "PHARMACY WEST", "STATION KIOSK", "GARDEN WORLD", "WEEKEND STORES",
)

FIRST_NAMES = (
    "Anna", "Peter", "Maria", "Tom", "Lucía", "Henrik", "Claire", "Omar", "Julia", "Ben",
)
LAST_NAMES = (
    "Miller", "Novak", "Rossi", "Laurent", "Berg", "Costa", "Hughes", "Keller", "Lindt",
)
STREETS = (
    "Mill Lane", "Station Road", "Park Street", "High Street", "Church Row", "Bridge Street",
)
TOWNS = (
    "Ashford", "Norwick", "Millbrook", "Eastport", "Langdale", "Kingsbury", "Redhill",
    "Stonebridge", "Westmere", "Oakham", "Fairview", "Rivermouth", "Hillgate", "Sandbay",
    "Northam", "Applewood",
)

SENTENCES = (
    "The river had risen in the night and the lower road was closed until noon.",
    "We would like to thank you for your order of the third of March.",
    "Nobody in the village could say when the old clock had stopped.",
    "The council will decide on the new bridge at its next meeting.",
    "Please find enclosed the signed copy of the agreement for your records.",
    "She folded the map, put it in her coat and walked on towards the station.",
    "Prices of houses rose more slowly than in the year before.",
    "A second train followed ten minutes later, almost empty.",
    "The results were better than the members of the board had hoped.",
    "Should you have any questions, do not hesitate to call our office.",
    "It was the kind of morning on which every sound carries.",
    "Farmers expect a good harvest after the wet weeks of spring.",
    "He remembered the garden as larger and the house as further away.",
    "The museum opens its new wing to the public on Saturday.",
    "Our records show that the account was settled in full.",
    "The team played well but could not turn its chances into goals.",
    "There were three letters on the table and none of them was for her.",
    "The work will take about six weeks, weather permitting.",
    "Snow is likely above eight hundred metres by the end of the week.",
    "They spoke about the weather, the harbour and the price of timber.",
    "I look forward to meeting you and your colleagues in the autumn.",
    "The author spent eleven years on the islands before writing this book.",
    "A spokesman said that the line would reopen on Monday.",
    "The lamp in the window was the only light on that side of the valley.",
    "In the second part we turn to the measurements and what they mean.",
    "The school asks parents to park on the other side of the street.",
    "Not until the evening did the wind drop and the boats put out.",
    "We regret to inform you that the course has been postponed.",
)
HEADLINES = (
    "Bridge to close for repairs", "Town hall opens its doors", "Rain ends the long drought",
    "New line for the harbour", "Library wins a prize", "Late goal decides the match",
    "Storm passes the coast", "Schools plan longer days", "Market returns to the square",
    "More trains from May", "Museum finds lost painting", "Winter arrives early",
)
NEWSPAPERS = (
    "The Morning Courier", "Valley Gazette", "The Daily Herald", "Evening Post",
    "The Harbour Times", "County Chronicle",
)
CHAPTERS = (
    "The road north", "A house by the river", "Letters", "What the miller saw", "First snow",
    "Method", "Measurements", "The long winter", "Results", "An unexpected guest", "The island",
    "Return", "Sources", "Discussion", "The clock", "Harbour lights", "Appendix", "Preface",
)
FORM_FIELDS = (
    "Family name", "First name", "Date of birth", "Street", "Town", "Postcode", "Telephone",
    "E-mail", "Occupation", "Signature", "Place and date", "Membership no.", "Bank account",
    "Nationality", "Reason for request", "Number of persons", "Start of contract",
)
FORM_CHOICES = (
    "Yes", "No", "Single", "Family", "New", "Renewal", "Monthly", "Yearly", "By post",
)
FORM_TITLES = (
    "APPLICATION FORM", "Registration", "Change of address", "Membership request", "Claim form",
    "Parking permit", "Order form",
)
NOTICES = (
    ("NO PARKING", "Private road"), ("CLOSED", "Back on Monday"), ("LOST CAT", "Please call"),
    ("OPEN DAY", "Saturday 10 to 16"), ("SALE", "Everything must go"), ("EXIT", "Mind the step"),
    ("CONCERT", "Town hall, 8 pm"), ("QUIET", "Exam in progress"), ("WET PAINT", "Do not touch"),
    ("YARD SALE", "Sunday from nine"), ("FOR RENT", "Two rooms, garden"),
)
CHART_TITLES = (
    "Visitors by month", "Sales 2019–2023", "Rainfall in mm", "Energy use", "Survey",
    "Passengers (thousands)", "Share by region", "Temperature", "Budget",
)
